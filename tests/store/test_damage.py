import random
import resource
import shutil
import subprocess
import threading
import time

import commands
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import reproducible
from tiny import TINY

import bench
from bench import BenchError
from bench.store.inspection import inspect
from bench.system.checksums import DamagedFileError, SummedFolder

MEMORY = '''
import torch
from toys import Steady


class Greedy(Steady):
    """Asks for more memory than there is."""

    def training_step(self, images, step):
        torch.empty(2**50)
'''


# One of each kind: of reconstructions, of features, of recorded activity.
METRICS = "psnr,fad,firing_rate"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two models, and its rows."""
    out = tmp_path_factory.mktemp("finished") / "run"
    rows = run(out)
    return out, reproducible(rows)


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def run(out, **arguments):
    asked = {"backends": "fused", "settings": TINY, "metrics": METRICS}
    return bench.run("ann_vae,esvae", **asked, out=out, **arguments)


def flip_a_bit(path, position=None):
    content = bytearray(path.read_bytes())
    position = random.randrange(len(content)) if position is None else position % len(content)
    content[position] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [flip_a_bit, truncate, empty])
def test_damaged_rows_are_found_told_and_done_again(harm, copy, finished, bench_cli, tiny_flags):
    (damaged,) = copy.glob("cells/esvae*/rows.parquet")
    harm(damaged)
    code, out, _ = bench_cli("doctor", copy)
    assert code == 1
    assert f"{damaged.relative_to(copy)}" in out
    assert "is damaged" in out
    flags = ["--models", "ann_vae,esvae", "--backends", "fused", *tiny_flags, "--out", copy]
    flags += ["--metrics", METRICS]
    code, out, _ = bench_cli("run", *flags, "--dry-run")
    assert "its rows are damaged: to do again" in out
    code, out, _ = bench_cli("run", *flags)
    assert code == 0
    assert "ok (damaged and done again: rows.parquet)" in out
    assert reproducible(bench.load_results(copy)).equals(finished[1])
    assert damaged.with_name("rows.parquet.damaged").exists()
    assert "rows.parquet is damaged" in damaged.with_name("cell.log").read_text()
    code, out, _ = bench_cli("doctor", copy)
    assert code == 0
    assert "was damaged and has been computed again" in out


@pytest.mark.parametrize("name", ["weights-last.safetensors", "training.json"])
def test_damaged_weights_are_trained_again(name, copy, finished):
    (cell,) = copy.glob("cells/esvae*")
    (cell / "rows.parquet").unlink()
    flip_a_bit(cell / name)
    run(copy)
    assert f"{name} is damaged" in (cell / "cell.log").read_text()
    assert reproducible(bench.load_results(copy)).equals(finished[1])


@pytest.mark.full
def test_a_damaged_checkpoint_is_not_gone_on_from(copy, finished, tiny_flags):
    (cell,) = copy.glob("cells/esvae*")
    for path in cell.iterdir():
        if path.is_file():
            path.unlink()
    flags = ["run", "--models", "ann_vae,esvae", "--backends", "fused", *tiny_flags, "--out", copy]
    flags += ["--metrics", METRICS]
    with commands.started(*flags, "--checkpoint-every", "0.001s") as process:
        commands.wait_for((cell / "checkpoint.pt").exists, process)
        process.kill()
    flip_a_bit(cell / "checkpoint.pt")
    run(copy)
    log = (cell / "cell.log").read_text()
    assert "checkpoint.pt is damaged" in log
    assert "going on from" not in log
    assert reproducible(bench.load_results(copy)).equals(finished[1])


def test_a_damaged_table_is_told_and_gathered_anew(copy, finished):
    flip_a_bit(copy / "results.parquet")
    with pytest.raises(BenchError, match=r"results.parquet cannot be read .*is damaged"):
        bench.load_results(copy)
    run(copy)
    assert reproducible(bench.load_results(copy)).equals(finished[1])


def test_damage_in_a_cell_that_was_not_asked_for_is_told(copy, caplog):
    (damaged,) = copy.glob("cells/esvae*/rows.parquet")
    flip_a_bit(damaged)
    bench.run("ann_vae", settings=TINY, metrics=METRICS, out=copy)
    assert "Left out: " in caplog.text
    assert str(damaged) in caplog.text
    others = {"fad_autoencoder", "real_images", "pixel_noise"}
    assert set(bench.load_results(copy)["model"]) == {"ann_vae", *others}


def test_a_lost_or_broken_run_file_keeps_the_cells(copy, finished, bench_cli):
    (copy / "run.json").write_text("{")
    with pytest.raises(BenchError, match="move this file away"):
        run(copy)
    code, out, _ = bench_cli("doctor", copy)
    assert (code, "run.json" in out) == (1, True)
    (copy / "run.json").unlink()
    run(copy)
    assert reproducible(bench.load_results(copy)).equals(finished[1])
    assert [found for found in inspect(copy) if found.damage] == []


def test_doctor_has_nothing_to_say_of_a_sound_run(copy, bench_cli):
    code, out, _ = bench_cli("doctor", copy)
    assert (code, out) == (0, f"{copy}: no damage found.\n")


def test_doctor_of_what_is_no_run_directory(bench_cli, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nothing"):
        code, _, err = bench_cli("doctor", path)
        assert code == 2
        assert err.startswith(f"Error: {path} is not a ")


@settings(deadline=None, max_examples=60)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7), content=st.binary(min_size=1))
def test_any_flipped_bit_is_found(tmp_path_factory, position, bit, content):
    folder = SummedFolder(tmp_path_factory.mktemp("summed"))
    with folder.write("file") as file:
        file.write(content)
    altered = bytearray(content)
    altered[position % len(content)] ^= 1 << bit
    (folder.path / "file").write_bytes(altered)
    with pytest.raises(DamagedFileError):
        folder.read("file")
    assert folder.damaged() == ["file"]


def test_a_death_before_the_first_record_leaves_a_directory_that_can_be_used(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "SHA256SUMS").write_text(f"{'0' * 64}  run.json\n")
    assert "ok" in set(run(tmp_path / "run")["status"])


def test_what_is_replaced_while_it_is_read_is_not_taken_for_damage(tmp_path):
    folder, over, size = SummedFolder(tmp_path), threading.Event(), 10**7

    def replace_again_and_again():
        for number in range(60):
            with folder.write("file") as file:
                file.write(bytes([number % 256]) * size)
        over.set()

    with folder.write("file") as file:
        file.write(b"first")
    writer = threading.Thread(target=replace_again_and_again)
    writer.start()
    while not over.is_set():
        folder.read("file")
        assert folder.damaged() == []
    writer.join()


def test_sums_are_read_by_sha256sum(copy):
    for sums in copy.rglob("SHA256SUMS"):
        subprocess.run(
            ["sha256sum", "--check", "--strict", sums.name],
            cwd=sums.parent, check=True, capture_output=True,
        )  # fmt: skip


def test_a_death_between_sum_and_file_damages_neither_the_old_nor_the_new(tmp_path, monkeypatch):
    folder = SummedFolder(tmp_path)
    contents = [b"old", b"new"]
    import os

    replace = os.replace
    for survivors in range(4):
        with folder.write("file") as file:
            file.write(contents[0])
        left = [survivors]

        def die(source, target, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", die)
        try:
            with folder.write("file") as file:
                file.write(contents[1])
        except KeyboardInterrupt:
            pass
        monkeypatch.setattr(os, "replace", replace)
        assert folder.damaged() == []
        assert folder.read("file") == (contents[0] if survivors < 2 else contents[1])


def test_memory_that_runs_out_fails_one_cell(plugins, tiny, tmp_path):
    plugins("plugin_memory", MEMORY, models={"greedy": "plugin_memory:Greedy"})
    asked = {"settings": tiny, "metrics": METRICS, "out": tmp_path / "run"}
    rows = bench.run("greedy,ann_vae", **asked)
    rows = rows[rows["status"] != "not_asked"]
    greedy = rows[rows["model"] == "greedy"]
    assert set(greedy["status"]) == {"failed"}
    assert greedy["reason"].str.contains("memory").all()
    assert "failed" not in set(rows[rows["model"] == "ann_vae"]["status"])


def test_a_clock_that_jumps_changes_no_row(copy, finished, monkeypatch, tmp_path):
    now, jumps = time.time, random.Random(0)
    monkeypatch.setattr(time, "time", lambda: now() + jumps.uniform(-1e9, 1e9))
    rows = run(tmp_path / "jumping", checkpoint_every="0.01s")
    assert reproducible(rows).equals(finished[1])


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30M", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this user cannot mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_the_run_and_loses_nothing(disk, finished, bench_cli, tiny_flags):
    flags = ["run", "--models", "ann_vae,esvae", "--backends", "fused", *tiny_flags,
             "--metrics", METRICS, "--out", disk / "run"]  # fmt: skip
    ann_vae = [*flags]
    ann_vae[2] = "ann_vae"
    assert bench_cli(*ann_vae)[0] == 0
    done = bench.load_results(disk / "run")
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(b"0" * (free - 80_000))
    code, _, err = bench_cli(*flags)
    assert code == 1
    assert err.startswith("Error: ")
    assert "cannot be written: No space left on device. Finished results are kept" in err
    assert bench.load_results(disk / "run").equals(done)
    (disk / "ballast").unlink()
    assert [found for found in inspect(disk / "run") if found.damage] == []
    assert bench_cli(*flags)[0] == 0
    assert reproducible(bench.load_results(disk / "run")).equals(finished[1])


def test_an_output_that_becomes_read_only(disk, bench_cli, tiny_flags):
    flags = ["run", "--models", "ann_vae", *tiny_flags, "--out", disk / "run"]
    flags += ["--metrics", METRICS]
    assert bench_cli(*flags)[0] == 0
    done = bench.load_results(disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, _, err = bench_cli(*flags)
    assert code == 2
    assert "cannot be written: Read-only file system" in err
    assert bench.load_results(disk / "run").equals(done)


def test_files_of_limited_size_stop_the_run(bench_cli, tiny_flags, tmp_path):
    flags = ["run", "--models", "esvae", "--backends", "fused", *tiny_flags,
             "--metrics", METRICS, "--out", tmp_path / "run"]  # fmt: skip
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        code, _, err = bench_cli(*flags)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    assert "cannot be written: File too large" in err
    assert bench_cli(*flags)[0] == 0
