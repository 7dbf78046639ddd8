"""Trained extractors travel with a reference: another machine loads them instead of training."""

import shutil

import commands
import pytest
from rows import reproducible
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import TINY

import bench
from bench import registry
from bench.store.run_directory import load_results

FAD = ["fad", "fad_official"]
OWN = "autoencoder_reconstruction_loss"
SEED = "bench.metrics.extractors.autoencoder_training.SEED"
ANN = ["--models", "ann_vae"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A run directory, its reference and the cache, as another machine made them."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.metrics, "names", lambda: FAD)
        patch.setenv("BENCH_CACHE", str(folder / "cache1"))
        patch.setattr(SEED, 1)
        bench.run("ann_vae", settings=TINY, out=folder / "run1")
    return folder


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Move to a machine with an empty cache, whose autoencoders get other weights."""
    monkeypatch.setattr(registry.metrics, "names", lambda: FAD)

    def move(number):
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / f"cache{number}"))
        monkeypatch.setattr(SEED, number)

    return move


@pytest.fixture
def bench_run(bench_cli, tiny_flags, tmp_path):
    """Run one model, in a run directory of the given name; gives its rows."""

    def run(name, *arguments):
        out = tmp_path / name
        code, _, err = bench_cli("run", *ANN, *tiny_flags, *arguments, "--out", out)
        assert code == 0, err
        return load_results(out)

    return run


@pytest.fixture
def reference(elsewhere, machine, bench_cli, tmp_path):
    """A reference that was made on another machine."""
    shutil.copytree(elsewhere, tmp_path, dirs_exist_ok=True)
    code, out, _ = bench_cli("reference", "update", tmp_path / "run1", tmp_path / "reference")
    assert code == 0
    assert str(weights_of(tmp_path / "reference")) in out
    machine(2)
    return tmp_path / "reference"


def weights_of(reference):
    (file,) = (reference / "extractors").iterdir()
    return file


def sha256s(rows):
    return set(rows["extractor_sha256"].dropna())


def test_a_run_loads_the_extractors_of_a_reference_instead_of_training(
    reference, bench_run, bench_cli, tmp_path
):
    assert weights_of(reference).name.startswith("fad_autoencoder-digits-")
    known = load_results(reference)
    own = bench_run("own")
    assert sha256s(own).isdisjoint(sha256s(known))
    code, out, _ = bench_cli("compare", tmp_path / "own", reference)
    assert "extractor_sha256" in out
    loaded = bench_run("loaded", "--reference", reference)
    assert sha256s(loaded) == sha256s(known)
    assert loaded["metric"].tolist().count(OWN) == 1
    for metric, cells in ((OWN, 1), *((name, 3) for name in FAD)):
        values = [rows.loc[rows["metric"] == metric, "value"].tolist() for rows in (loaded, known)]
        assert values[0] == values[1]
        assert len(values[0]) == cells
    code, out, _ = bench_cli("compare", tmp_path / "loaded", reference, "--strict")
    assert (code, "No regression." in out) == (0, True)
    # The cache stays the machine's own.
    assert sha256s(bench_run("again")) == sha256s(own)


def test_rows_with_other_weights_are_computed_again(reference, bench_run, bench_cli, tmp_path):
    own = bench_run("run")
    code, _, _ = bench_cli("compare", tmp_path / "run", reference, "--strict")
    assert code == 3
    (training,) = tmp_path.glob("run/cells/ann_vae*/training.json")
    before = training.read_bytes()
    loaded = bench_run("run", "--reference", reference)
    assert sha256s(loaded) == sha256s(load_results(reference)) != sha256s(own)
    assert training.read_bytes() == before
    again = bench_run("run", "--reference", reference)
    assert again["created_at"].tolist() == loaded["created_at"].tolist()


def test_another_training_is_not_replaced(reference, bench_run):
    """The reference has no weights of three epochs, so they are trained."""
    rows = bench_run("run", "--reference", reference, "--set", "autoencoder_epochs=3")
    assert sha256s(rows).isdisjoint(sha256s(load_results(reference)))


def test_a_reference_without_weights_changes_nothing(reference, bench_run):
    own = bench_run("own")
    shutil.rmtree(reference / "extractors")
    rows = bench_run("run", "--reference", reference)
    assert sha256s(rows) == sha256s(own)


def test_a_run_directory_serves_as_reference(reference, bench_run, tmp_path):
    rows = bench_run("run", "--reference", tmp_path / "run1")
    assert sha256s(rows) == sha256s(load_results(reference))


def test_the_file_says_what_the_weights_depend_on_and_holds_no_pickle(reference, tmp_path):
    path = weights_of(reference)
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()["bench"]
    (cached,) = (tmp_path / "cache1" / "autoencoders").iterdir()
    assert path.stem.endswith(cached.name[:16])
    facts = facts.replace("\\", "")
    for fact in ('"epochs": 1', '"extractor": "fad_autoencoder"', '"dataset": "digits"'):
        assert fact in facts
    assert next(iter(sha256s(load_results(reference)))) in facts
    assert path.stat().st_size < 5e6


def test_an_update_takes_the_weights_from_the_run_directory_alone(
    reference, bench_cli, bench_run, tmp_path
):
    shutil.rmtree(tmp_path / "cache1")
    again = tmp_path / "again"
    assert bench_cli("reference", "update", tmp_path / "run1", again)[0] == 0
    assert weights_of(again).read_bytes() == weights_of(reference).read_bytes()
    # A reference of a reference, and an update that replaces what is there.
    assert bench_cli("reference", "update", again, tmp_path / "copy")[0] == 0
    assert weights_of(tmp_path / "copy").read_bytes() == weights_of(reference).read_bytes()
    bench_run("three", "--set", "autoencoder_epochs=3")
    assert bench_cli("reference", "update", tmp_path / "three", again)[0] == 0
    assert weights_of(again).name != weights_of(reference).name
    assert bench_cli("reference", "update", "--keep", tmp_path / "run1", again)[0] == 0
    assert len(list((again / "extractors").iterdir())) == 2


def test_a_lost_file_of_a_run_directory_comes_back(reference, bench_run, tmp_path, machine):
    machine(1)
    (file,) = tmp_path.glob("run1/cells/fad_autoencoder*/extractor.safetensors")
    before = file.read_bytes()
    file.unlink()
    bench_run("run1")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "damage", ["altered", "metadata", "truncated", "empty", "no metadata", "foreign", "renamed"]
)
@pytest.mark.parametrize("verb", ["run", "update"])
def test_a_foreign_or_damaged_file_is_refused(
    reference, bench_cli, bench_run, tiny_flags, tmp_path, damage, verb
):
    path = weights_of(reference)
    content = bytearray(path.read_bytes())
    match damage:
        case "altered":
            content[-100] ^= 4
            path.write_bytes(content)
        case "metadata":
            path.write_bytes(bytes(content).replace(b'epochs\\": 1', b'epochs\\": 7'))
            assert path.read_bytes() != content
        case "truncated":
            path.write_bytes(content[:-100])
        case "empty":
            path.write_bytes(b"")
        case "no metadata":
            save_file(load_file(path), path)
        case "foreign":
            bench_run("foreign")
            (other,) = tmp_path.glob("foreign/cells/fad_autoencoder*/extractor.safetensors")
            shutil.copy(other, path)
        case "renamed":
            path.rename(path.with_name("fad_autoencoder-digits-0123456789abcdef.safetensors"))
    before = sorted(tmp_path.rglob("*"))
    if verb == "run":
        code, _, err = bench_cli("run", *ANN, *tiny_flags, "--reference", reference,
                                 "--out", tmp_path / "new")  # fmt: skip
    else:
        code, _, err = bench_cli("reference", "update", reference, tmp_path / "new")
    assert (code, err.count("\n")) == (2, 1)
    assert "extractors" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_reference_is_a_mistake_of_one_line(bench_cli, tiny_flags, tmp_path):
    code, _, err = bench_cli("run", *tiny_flags, "--reference", tmp_path, "--out", tmp_path / "r")
    assert (code, err.count("\n")) == (2, 1)
    assert "is not a run directory: it has no run.json" in err
    assert not (tmp_path / "r").exists()


def test_features_of_stored_weights_are_those_just_trained(reference, tiny, tmp_path, machine):
    rows = [
        bench.run("ann_vae", settings=tiny, out=tmp_path / name, **given)
        for name, given in (("loaded", {"reference": reference}), ("unused", {}))
    ]
    assert sha256s(rows[0]) != sha256s(rows[1])
    machine(1)
    shutil.rmtree(tmp_path / "cache1")
    trained = bench.run("ann_vae", settings=tiny, out=tmp_path / "trained")
    assert reproducible(trained).equals(reproducible(rows[0]))


@pytest.mark.full
@pytest.mark.parametrize("how", [["run", "--jobs", "2"], ["cluster", "run"]])
def test_workers_and_nodes_load_them_too(reference, tiny_flags, tmp_path, how):
    if how[0] == "cluster":
        pytest.importorskip("ray")
    out = tmp_path / "run"
    code, _, err = commands.run(*how, *ANN, *tiny_flags, "--reference", reference, "--out", out,
                                metrics=FAD)  # fmt: skip
    assert code == 0, err
    assert sha256s(load_results(out)) == sha256s(load_results(reference))
