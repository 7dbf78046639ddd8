"""A run directory that is carried to another folder, or machine, in the middle of a training."""

import shutil

import commands
import pytest
from rows import reproducible
from tiny import FEW_METRICS

import bench

# FSVAE of the papers' size: weights, two moments of each and the best weights make 27 MB.
OWN = ["--set", "latent_size=128", "--set", "models.fsvae.k=20",
       "--set", "epoch_selection=best_test_loss"]  # fmt: skip
LARGEST_FILE = 16 * 2**20


@pytest.fixture
def flags(tiny_flags):
    return ["run", "--models", "fsvae", *tiny_flags, *OWN, "--metrics", FEW_METRICS]


@pytest.fixture
def interrupted(flags, tmp_path):
    """A run directory whose training a signal stopped."""
    out = tmp_path / "here" / "run"
    long = ["--set", "epochs=8", "--checkpoint-every", "1epochs", "--out", out]
    with commands.started(*flags, *long) as process:
        commands.wait_for(lambda: len(list(out.glob("cells/fsvae*/*.part"))) > 1, process)
        commands.wait_for(lambda: list(out.glob("cells/fsvae*/checkpoint.pt")), process)
        process.terminate()
        process.communicate(timeout=commands.PATIENCE)
    assert process.returncode == 143
    return out


def finish(flags, out):
    code, told, err = commands.run(*flags, "--set", "epochs=8", "--out", out)
    assert code == 0, err
    return told, reproducible(bench.load_results(out))


@pytest.mark.full
def test_it_goes_on_from_files_that_are_small_enough_to_be_carried(
    interrupted, flags, tmp_path, monkeypatch
):
    there = tmp_path / "there" / "carried"
    shutil.copytree(interrupted, there)
    shutil.rmtree(interrupted)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "there" / "cache"))
    sizes = [path.stat().st_size for path in there.rglob("*") if path.is_file()]
    assert sum(sizes) > LARGEST_FILE
    assert max(sizes) < LARGEST_FILE
    _, rows = finish(flags, there)
    (log,) = (path.read_text() for path in there.glob("cells/fsvae*/cell.log"))
    assert "going on from epoch" in log
    assert not list(there.glob("cells/*/checkpoint*"))
    _, whole = finish(flags, tmp_path / "whole")
    assert rows.equals(whole)


@pytest.mark.full
def test_a_training_without_all_parts_of_its_checkpoint_begins_anew(interrupted, flags):
    part, *_ = sorted(interrupted.glob("cells/fsvae*/*.part"))
    part.write_bytes(part.read_bytes()[:-1])
    told, rows = finish(flags, interrupted)
    assert f"(damaged and done again: {part.name})" in told
    (log,) = (path.read_text() for path in interrupted.glob("cells/fsvae*/cell.log"))
    assert "going on from epoch" not in log
    assert "the checkpoint lacks parts: training starts again" in log
    assert set(rows["status"]) <= {"ok", "not_applicable", "not_asked"}
