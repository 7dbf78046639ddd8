"""``bench weights``, and runs that may download nothing."""

import hashlib
from dataclasses import replace

import pytest

from bench.metrics.extractors import inception, weights

CONTENT = b"weights of a network"


@pytest.fixture
def offered(served, monkeypatch, tmp_path):
    """Inception's weights on a local server; gives their path in the cache."""
    folder, address = served
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    (folder / f"net-{sha256[:8]}.pth").write_bytes(CONTENT)
    file = replace(
        inception.INCEPTION,
        url=f"{address}net-{sha256[:8]}.pth",
        sha256=sha256[:8],
        variable="BENCH_NOT_SET",
    )
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_failures", {})
    monkeypatch.setattr(inception.InceptionTorchFidelity, "weight_files", (file,))
    monkeypatch.setattr(inception.InceptionClean, "weight_files", (file,))
    return tmp_path / "cache" / "weights" / f"net-{sha256[:8]}.pth"


def test_status_says_what_is_here_and_fetch_gets_the_rest(bench_cli, offered):
    code, out, err = bench_cli("weights", "status")
    assert (code, err) == (0, "")
    assert f"inception: not here: {offered} does not exist" in out
    assert "`bench weights fetch inception`" in out
    code, out, err = bench_cli("weights", "fetch", "inception")
    assert (code, out, err) == (0, f"inception: here, {offered}\n", "")
    assert offered.read_bytes() == CONTENT
    _, out, _ = bench_cli("weights", "status")
    assert f"inception: here, {offered}." in out


def test_fetch_renews_a_damaged_file(bench_cli, offered):
    offered.parent.mkdir(parents=True)
    offered.write_bytes(b"half")
    _, out, _ = bench_cli("weights", "status")
    assert "inception: cannot be used" in out
    code, _, _ = bench_cli("weights", "fetch", "inception")
    assert code == 0
    assert offered.read_bytes() == CONTENT


def test_a_wrong_checksum_is_one_line_and_leaves_nothing(bench_cli, offered, served):
    (served[0] / offered.name).write_bytes(b"something else")
    code, _, err = bench_cli("weights", "fetch", "inception")
    assert code == 2
    assert "has the wrong checksum" in err
    assert not offered.exists()


def test_an_unknown_name_lists_the_known_ones(bench_cli, offered):
    code, _, err = bench_cli("weights", "fetch", "inceptoin")
    assert code == 2
    assert "Did you mean: inception?" in err


@pytest.mark.parametrize("value", ["1", "yes"])
def test_nothing_is_downloaded_offline(value, bench_cli, offered, monkeypatch):
    monkeypatch.setenv("BENCH_OFFLINE", value)
    code, _, err = bench_cli("weights", "fetch", "inception")
    assert code == 2
    assert "--offline or BENCH_OFFLINE forbids downloads" in err
    assert not offered.exists()
    monkeypatch.setenv("BENCH_OFFLINE", "0")
    code, _, _ = bench_cli("weights", "fetch", "inception")
    assert code == 0


def test_an_offline_run_skips_what_it_would_download(bench_cli, offered, tiny_flags, tmp_path):
    (tmp_path / "data").mkdir()
    flags = ["run", "--models", "ann_vae", *tiny_flags, "--data-root", tmp_path / "data"]
    flags += ["--metrics", "fid,psnr", "--set", "inception_minimum_images=2", "--offline"]
    code, out, err = bench_cli(*flags, "--out", tmp_path / "digits")
    assert (code, err) == (0, "")
    assert "skipped: ann_vae/torch/digits/seed 0: the weights 'inception' are missing" in out
    assert not offered.exists()
    code, _, err = bench_cli(*flags, "--datasets", "mnist", "--out", tmp_path / "mnist")
    assert code == 2
    assert "'mnist' cannot be downloaded: --offline or BENCH_OFFLINE forbids downloads" in err
    assert list((tmp_path / "data").iterdir()) == []
