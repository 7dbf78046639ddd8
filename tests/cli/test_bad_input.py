import gzip
import json
import shutil

import numpy as np
import pytest

import bench
from bench.errors import BenchError


@pytest.fixture
def fails(bench_cli, tmp_path):
    """Run ``bench run`` with a mistake; gives its one line. Nothing may be written."""

    def run(*arguments, out=tmp_path / "run"):
        before = sorted(tmp_path.rglob("*"))
        code, stdout, stderr = bench_cli("run", *arguments, "--out", out)
        assert code == 2, (stdout, stderr)
        assert stdout == ""
        assert stderr.startswith("Error: ")
        assert stderr.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return stderr

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "fsave"], "Unknown model 'fsave'. Did you mean: fsvae?"),
        (["--backends", "snntroch"], "Unknown backend 'snntroch'. Did you mean: snntorch?"),
        (["--datasets", "mnits"], "Unknown dataset 'mnits'. Did you mean: mnist?"),
        (["--protocol", "smok"], "Unknown protocol 'smok'. Did you mean: smoke?"),
        (["--models", ""], "An empty selection: no models."),
        (["--models", ","], "An empty selection: no models."),
        (["--datasets", ""], "An empty selection: no datasets."),
        (["--backends", ""], "An empty selection: no backends."),
        (["--seeds", ""], "An empty selection: no seeds."),
        (["--seeds", "1,x"], "expected whole numbers from 0, got 'x'"),
        (["--seeds", "-1"], "got '-1'"),
        (["--set", "time_steps=0"], "time_steps"),
        (["--set", "latent_size=0"], "latent_size"),
        (["--set", "batch_size=100000"], "batch_size 100000 is larger than the 1437"),
        (["--set", "train_images=8"], "batch_size 16 is larger than the 8 training images"),
        (["--set", "models.fsvae.k=0"], "options of fsvae: k:"),
        (["--set", "models.fsvae.kk=1"], "options of fsvae"),
        (["--set", "models.ann_vae.kl_weight=-1"], "options of ann_vae"),
        (["--set", "models.fsave.k=1"], "Unknown model 'fsave'"),
        (["--set", "image_size=48"], "built for 32x32 and 64x64"),
        (["--device", "gpu"], "Unknown device 'gpu'"),
        (["--device", "cuda:99"], "'cuda:99' is not available: PyTorch"),
        (["--data-root", "nowhere"], "does not exist"),
        (["--weights", "inception"], "expected NAME=PATH"),
        (["--weights", "inception=nowhere"], "the file does not exist"),
        (["--weights", f"incepton={__file__}"], "Unknown weights 'incepton'. Did you mean: incep"),
        (["--datasets", "folder:nowhere"], "does not exist"),
        (["--nonsense"], "No such option"),
        (["--epochs"], "No such option"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(fails, arguments, words):
    assert words in fails(*arguments)


def test_a_protocol_override_for_a_misspelt_dataset_is_refused(fails, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        "time_steps=2\nlatent_size=2\nepochs=1\nbatch_size=4\nlearning_rate=0.1\n"
        "[[overrides]]\ndatasets=['mnits']\nset={epochs=2}\n"
    )
    assert "Unknown dataset 'mnits'" in fails("--protocol", path)


def test_a_dataset_asked_for_by_name_that_cannot_be_had(fails, tmp_path):
    root = tmp_path / "data"
    (root / "MNIST" / "raw").mkdir(parents=True)
    (root / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(b"nothing like it")
    for name in ("t10k-images-idx3", "train-labels-idx1", "t10k-labels-idx1"):
        (root / "MNIST" / "raw" / f"{name}-ubyte.gz").write_bytes(gzip.compress(b"x"))
    line = fails("--datasets", "mnist", "--data-root", root)
    assert "train-images-idx3-ubyte.gz is corrupt or truncated" in line


def test_a_truncated_real_gz(fails, real_data, tmp_path):
    raw = tmp_path / "data" / "MNIST" / "raw"
    shutil.copytree(real_data / "MNIST" / "raw", raw)
    path = raw / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "t10k-images" in fails("--datasets", "mnist", "--data-root", tmp_path / "data")


@pytest.mark.parametrize(
    "arrays",
    [
        {"train_images": np.zeros((8, 32, 32), np.uint8)},
        {"train_images": np.zeros((8, 32, 32)), "test_images": np.zeros((8, 32, 32))},
        {"train_images": np.full((8, 9, 9), 300), "test_images": np.full((8, 9, 9), 300)},
        {"train_images": np.zeros((8, 9), np.uint8), "test_images": np.zeros((8, 9), np.uint8)},
    ],
)
def test_a_wrong_array_file(fails, tmp_path, arrays):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    assert str(path) in fails("--datasets", f"own={path}")


def test_a_truncated_array_file(fails, tmp_path):
    path = tmp_path / "own.npz"
    images = np.zeros((8, 32, 32), np.uint8)
    np.savez(path, train_images=images, test_images=images)
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in fails("--datasets", f"npz:{path}")


def test_a_corrupt_image(fails, tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(5):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(b"\x89PNG no more")
    assert "0.png" in fails("--datasets", f"folder:{tmp_path / 'pictures'}")


def test_an_output_directory_of_another_schema(fails, tmp_path):
    out = tmp_path / "old"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"schema_version": 0, "commands": []}))
    assert "schema version 0" in fails("--models", "ann_vae", out=out)
    with pytest.raises(BenchError, match="schema version 0, this release reads versions 1 to 2"):
        bench.load_results(out)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", '{"schema_version": 2}', '{"schema_version": 2, "commands": 7}'],
)
def test_an_output_directory_with_a_broken_run_file(fails, tmp_path, content):
    out = tmp_path / "old"
    out.mkdir()
    (out / "run.json").write_text(content)
    assert "cannot be read" in fails("--models", "ann_vae", out=out)


def test_an_output_directory_that_holds_something_else(fails, tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("precious")
    assert "not a run directory" in fails("--models", "ann_vae", out=out)


def test_an_output_directory_that_is_a_file(fails, tmp_path):
    out = tmp_path / "file"
    out.write_text("")
    assert "not a directory" in fails("--models", "ann_vae", out=out)


def test_an_output_directory_that_cannot_be_made(fails, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails("--models", "ann_vae", out=tmp_path / "file" / "run")


def test_a_data_root_that_is_a_file(fails, tmp_path):
    (tmp_path / "root").write_text("")
    assert "not a directory" in fails("--data-root", tmp_path / "root")


def test_load_results_of_something_else(tmp_path):
    with pytest.raises(BenchError, match="not a run directory"):
        bench.load_results(tmp_path)


def test_an_unknown_verb_is_one_line(bench_cli):
    code, _, err = bench_cli("rnu")
    assert code == 2
    assert err.count("\n") == 1


def test_the_api_raises_what_the_command_line_prints():
    with pytest.raises(BenchError, match="Did you mean: fsvae"):
        bench.run(models=["fsave"])


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, "0", True, None])
def test_the_api_refuses_what_is_no_seed(seed, tmp_path):
    with pytest.raises(BenchError, match=f"expected whole numbers from 0, got {seed!r}"):
        bench.run(models="ann_vae", seeds=[0, seed], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def pictures(folder, **arrays):
    """A folder of ten pictures, and a file of the same as arrays, under names with a comma."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(folder / "own.npz", train_images=images, test_images=images, **arrays)
    return folder / "own.npz"


@pytest.mark.parametrize("pattern", ["npz:{}", "mine={}", "digits,npz:{}"])
def test_a_path_with_a_comma(fails, tmp_path, pattern):
    line = fails("--datasets", pattern.format(pictures(tmp_path / "a,b")))
    assert "commas separate datasets, so a path cannot contain one" in line
    assert "a,b/own.npz" in line


def test_a_bare_path(fails, tmp_path):
    path = pictures(tmp_path / "a")
    assert f"is a path: use npz:{path}, or NAME={path}" in fails("--datasets", path)


@pytest.mark.parametrize("text", ["1", "1,0", "0,0", "a,b", "0,1,2", "0,nan", "0,inf", ""])
def test_a_wrong_range(fails, tmp_path, text):
    path = pictures(tmp_path / "a")
    line = fails("--datasets", f"npz:{path}", "--range", text)
    assert f"Range {text!r}: expected two numbers LOW,HIGH" in line


def test_a_range_without_a_path(fails):
    assert "A range is for datasets given by path" in fails("--range", "0,16")


@pytest.mark.parametrize("name", ["p.yaml", "p.YML", "p.json", "p.txt"])
def test_a_protocol_that_is_no_toml_file(fails, tmp_path, name):
    (tmp_path / name).write_text("epochs: 1")
    assert "expected a TOML file, whose name ends in .toml" in fails("--protocol", tmp_path / name)


def test_what_is_left_out_is_told_once_and_recorded(bench_cli, tmp_path, tiny_flags):
    path = pictures(tmp_path / "a", val_images=np.zeros(1))
    command = ["run", "--models", "ann_vae", "--datasets", f"npz:{path}", *tiny_flags]
    command += ["--set", "train_images=32", "--metrics", "psnr", "--out", tmp_path / "out"]
    for arguments in ([*command, "--dry-run"], command):
        code, _, err = bench_cli(*arguments)
        assert code == 0
        assert f"Warning: Dataset own: Left out of {path}: the keys val_images.\n" in err
    (recorded,) = json.loads((tmp_path / "out" / "run.json").read_text())["commands"]
    assert recorded["datasets"][0]["notes"] == [f"Left out of {path}: the keys val_images."]


def test_a_range_reaches_every_command(bench_cli, tmp_path):
    path = tmp_path / "own.npz"
    images = np.random.default_rng(0).integers(0, 17, (40, 8, 8), dtype=np.uint8)
    np.savez(path, train_images=images, test_images=images)
    dataset = ["--models", "ann_vae", "--datasets", f"npz:{path}"]
    for command in (["run", "--dry-run"], ["cluster", "run", "--dry-run"], ["profile"]):
        code, _, err = bench_cli(*command, *dataset)
        assert code == 2
        assert "--range 0,16 (in Python image_range=(0, 16))" in err
        assert bench_cli(*command, *dataset, "--range", "0,16")[0] == 0
    with pytest.raises(BenchError, match="expected two numbers"):
        bench.run(models="ann_vae", datasets=f"npz:{path}", image_range=(16, 0), out=tmp_path / "o")
