"""Reference statistics: written, read by others and by us, and refused if they are not that."""

import numpy as np
import pytest
import torch
from contexts import cell_context
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY

import bench
from bench.errors import BenchError
from bench.metrics.extractors.efficientnet import EfficientNetLite0
from bench.metrics.extractors.reference_statistics import (
    Provenance,
    ReferenceStatistics,
    read_statistics,
    write_statistics,
)
from bench.protocol import load_protocol

EXTRACTOR = "efficientnet_lite0"
METRIC = "efficientnet_frechet_distance"


def drawn(seed, count):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 1), dtype=np.uint8)


@pytest.fixture
def pictures(tmp_path):
    """A file of 24 images."""
    np.savez(tmp_path / "pictures.npz", arr_0=drawn(0, 24))
    return tmp_path / "pictures.npz"


@pytest.fixture
def stats(bench_cli, tmp_path):
    """Writes statistics with the command, and returns their path."""

    def stats(source, *flags, name="stats"):
        out = tmp_path / f"{name}.npz"
        code, _, err = bench_cli("stats", source, "--extractor", EXTRACTOR, "--out", out, *flags)
        assert (code, err) == (0, "")
        return out

    return stats


@pytest.fixture
def scored(tmp_path):
    """Scores 30 images by one Fréchet distance, and returns its row."""

    def scored(reference=(), out="scores", metrics=METRIC):
        rows = bench.score(
            drawn(1, 30),
            name="mine",
            settings=TINY,
            metrics=metrics,
            reference=reference,
            out=tmp_path / out,
        )
        return rows[rows["kind"] == "model"].set_index("metric").loc[METRIC]

    return scored


def test_mu_and_sigma_are_those_of_the_features(pictures, stats, tmp_path):
    with np.load(stats(pictures)) as file:  # Without pickles, as others read it.
        mean, covariance = file["mu"], file["sigma"]
    context = cell_context(load_protocol("smoke"), folder=tmp_path)
    images = torch.from_numpy(drawn(0, 24)).permute(0, 3, 1, 2) / 127.5 - 1
    features = EfficientNetLite0(context)(images).pool.double().numpy()
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-6)
    expected = np.cov(features, rowvar=False)
    np.testing.assert_allclose(covariance, expected, rtol=1e-5, atol=1e-9 * expected.max())
    assert (mean.dtype, covariance.dtype) == (np.float64, np.float64)


def test_statistics_of_the_reference_images_give_their_distance_and_only_it_again(
    stats, scored, tiny_flags
):
    first = scored(metrics="efficientnet*")
    file = stats("digits", "--protocol", "smoke", *tiny_flags)
    assert "digits test, 24 images" in str(read_statistics(file).provenance)
    again = scored(file, metrics="efficientnet*")
    assert again["value"] == first["value"]
    assert (again["ci_low"], again["ci_high"]) == (first["ci_low"], first["ci_high"])
    assert again["extractor"].startswith(f"{first['extractor']}; reference statistics of digits")
    assert again["created_at"] >= first["created_at"]
    rows = bench.load_results(file.parent / "scores")
    rows = rows[rows["kind"] == "model"].set_index("metric")
    assert (rows.loc[METRIC, "extractor"], rows.loc[METRIC, "n"]) == (again["extractor"], 30)
    assert "reference" not in rows.loc["efficientnet_kid", "extractor"]
    assert scored(file, metrics="efficientnet*")["created_at"] == again["created_at"]


def test_a_folder_and_a_file_of_the_same_images_have_the_same_statistics(pictures, stats):
    from PIL import Image

    folder = pictures.parent / "folder"
    folder.mkdir()
    for number, image in enumerate(drawn(0, 24)):
        Image.fromarray(image[..., 0]).save(folder / f"{number:02}.png")
    one, other = (
        read_statistics(stats(source, name=source.stem + "-s")) for source in (pictures, folder)
    )
    assert (one.mean == other.mean).all()
    assert (one.covariance == other.covariance).all()


def test_a_file_of_another_program_needs_the_name_of_its_extractor(pictures, stats, scored):
    with np.load(stats(pictures)) as file:
        plain = pictures.parent / "plain.npz"
        np.savez(plain, mu=file["mu"], sigma=file["sigma"])
    with pytest.raises(BenchError, match="does not say which extractor"):
        scored(plain)
    row = scored(f"{EXTRACTOR}={plain}")
    assert row["value"] == scored(pictures.parent / "stats.npz", out="other")["value"]
    assert "; reference statistics of plain.npz (SHA-256 " in row["extractor"]


def test_statistics_of_another_dimension_fail_their_metric_alone(tmp_path, scored):
    np.savez(tmp_path / "small.npz", mu=np.zeros(3), sigma=np.eye(3))
    row = scored(f"{EXTRACTOR}={tmp_path / 'small.npz'}", metrics="efficientnet*")
    assert row["status"] == "failed"
    assert row["reason"].endswith(
        "small.npz holds statistics of 3 features, and efficientnet_lite0 computes 1280."
    )
    rows = bench.load_results(tmp_path / "scores").set_index("metric")
    assert rows.loc["efficientnet_score", "status"] == "ok"


def test_statistics_of_other_weights_fail_their_metric(tmp_path, scored):
    origin = Provenance("faces", None, 9, EXTRACTOR, "an extractor", "0" * 64)
    statistics = ReferenceStatistics(np.zeros(1280), np.eye(1280), origin)
    write_statistics(statistics, tmp_path / "other.npz")
    row = scored(tmp_path / "other.npz")
    assert row["status"] == "failed"
    assert "was made with other weights of efficientnet_lite0" in row["reason"]


class Trap:
    """An object that would tell if it were unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros(3)}, "mu"),
        ({"mu": np.zeros(3)}, "sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, "shape"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "shape"),
        ({"mu": np.array([np.nan, 0]), "sigma": np.eye(2)}, "not finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2.0], [0.0, 1.0]])}, "not symmetric"),
        ({"mu": np.zeros(2), "sigma": -np.eye(2)}, "negative"),
        ({"mu": np.array([Trap()]), "sigma": np.eye(1)}, "Object arrays"),
        ({"mu": np.zeros(1), "sigma": np.eye(1), "provenance": np.array("{}")}, "missing 6"),
        ({"mu": np.zeros(1), "sigma": np.eye(1), "provenance": np.array("[")}, "Expecting value"),
    ],
)
def test_other_files_are_refused_before_anything_is_written(arrays, message, tmp_path, scored):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(BenchError, match=message):
        scored(tmp_path / "bad.npz")
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_a_torn_file_is_refused(content, tmp_path):
    (tmp_path / "torn.npz").write_bytes(content)
    with pytest.raises(BenchError, match=r"torn\.npz"):
        read_statistics(tmp_path / "torn.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "--extractor", "inceptoin"], "Unknown extractor"),
        (["digits", "--extractor", "autoencoder"], "is trained on each dataset"),
        (["digts", "--extractor", EXTRACTOR], "Did you mean: digits"),
        (["digits", "--extractor", EXTRACTOR, "--split", "tset"], "expected train, test"),
        (["digits", "--extractor", EXTRACTOR, "--split", "validation"], "no validation split"),
        (["{pictures}", "--extractor", EXTRACTOR, "--split", "test"], "has no splits"),
        (["{pictures}", "--extractor", EXTRACTOR, "--range", "1,0"], "the lower one first"),
        (["{empty}", "--extractor", EXTRACTOR], "empty"),
        (["{one}", "--extractor", EXTRACTOR], "need at least 2"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments, message, pictures, bench_cli, tmp_path
):
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "one.npy", drawn(0, 1))
    paths = {"pictures": pictures, "empty": tmp_path / "empty", "one": tmp_path / "one.npy"}
    filled = [text.format(**paths) for text in arguments]
    code, _, err = bench_cli("stats", *filled, "--out", tmp_path / "out.npz")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("out", ["stats.txt", "pictures.npz"])
def test_another_suffix_and_a_file_that_exists_are_refused(out, pictures, bench_cli):
    before = pictures.read_bytes()
    code, _, err = bench_cli(
        "stats", "digits", "--extractor", EXTRACTOR, "--out", pictures.parent / out
    )
    assert (code, err.count("\n")) == (2, 1)
    assert pictures.read_bytes() == before


def test_a_run_takes_one_reference_and_one_file_for_each_extractor(pictures, stats, scored):
    file = stats(pictures)
    with pytest.raises(BenchError, match="Two files of reference statistics for efficientnet"):
        scored([file, f"{EXTRACTOR}={file}"])
    with pytest.raises(BenchError, match=r"has statistics of .*, not of inception_clean"):
        scored([f"inception_clean={file}"])


@settings(deadline=None, max_examples=25)
@given(
    width=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    origin=st.none()
    | st.builds(Provenance, *[st.text(), st.none() | st.text(), st.integers()] + [st.text()] * 3),
)
def test_what_is_written_is_read(width, seed, origin, tmp_path_factory):
    draws = np.random.default_rng(seed)
    spread = draws.normal(size=(width, width))
    file = tmp_path_factory.mktemp("round") / "stats.npz"
    write_statistics(ReferenceStatistics(draws.normal(size=width), spread @ spread.T, origin), file)
    found = read_statistics(file)
    assert found.provenance == origin
    np.testing.assert_array_equal(found.covariance, spread @ spread.T)
