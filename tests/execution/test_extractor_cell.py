import shutil
from dataclasses import replace

import pytest

import bench
from bench import registry
from bench.api import prepare
from bench.metrics.extractors.autoencoder import Autoencoder
from bench.protocol import Override, load_protocol
from bench.request import RunRequest
from bench.store.trained_weights import TrainedWeights
from bench.system.progress import Reporter, WorkReporter

FAD = ["fad", "fad_official", "fad_infinity"]
SCALE = ["real_images", "pixel_noise"]


class Told(Reporter, WorkReporter):
    """Notes what it is told; stops in the middle of an epoch of the autoencoder."""

    def __init__(self, stop=None):
        self.stop = stop
        self.cells, self.stages = [], []

    def started(self, index, total, cell):
        self.cells.append(cell.split()[0])
        return self

    def evaluated(self, stage, done, total, detail=""):
        self.stages.append(stage)
        if self.stop and f"epoch {self.stop}/" in stage and 0 < done < total:
            raise KeyboardInterrupt


@pytest.fixture
def fad_only(monkeypatch, tmp_path):
    """Runs that observe FAD alone, with a cache of their own."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry.metrics, "names", lambda: FAD)


def extractor_cells(**asked):
    cells = prepare(RunRequest(**asked)).plan.cells
    return [cell for cell in cells if cell.kind == "extractor"]


def test_the_autoencoder_has_a_cell_before_the_models_that_it_judges(fad_only, tiny, tmp_path):
    told = Told()
    rows = bench.run(models="ann_vae,esvae", backends="reference", seeds=[3, 4], settings=tiny,
                     out=tmp_path / "run", reporter=told)  # fmt: skip
    assert told.cells == ["fad_autoencoder", *SCALE, *["ann_vae", "esvae"] * 2]
    own = rows[rows["model"] == "fad_autoencoder"]
    assert own["metric"].tolist() == ["autoencoder_reconstruction_loss"]
    row = own.iloc[0]
    assert (row["status"], row["split"], row["n"], row["epoch"]) == ("ok", "test", 24, 1)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    judged = rows[rows["metric"].isin(["fad", "fad_official"])]
    assert (judged["status"] == "ok").all()
    assert set(judged["extractor_sha256"]) == {row["extractor_sha256"]}
    trained = [stage for stage in told.stages if "training the autoencoder" in stage]
    assert set(trained) == {"training the autoencoder, epoch 1/1"}
    told = Told()
    bench.run(models="ann_vae", seeds=[3], settings=tiny, out=tmp_path / "run", reporter=told)
    assert told.stages == []


def test_an_interrupted_autoencoder_is_resumed_by_the_same_command(fad_only, tiny, tmp_path):
    asked = {"models": "ann_vae", "settings": [*tiny, "autoencoder_epochs=3"]}
    with pytest.raises(KeyboardInterrupt):
        bench.run(out=tmp_path / "run", reporter=Told(stop=2), **asked)
    told = Told()
    rows = bench.run(out=tmp_path / "run", reporter=told, **asked)
    assert told.stages[0] == "training the autoencoder, epoch 2/3"
    assert (rows.loc[rows["metric"] == "fad", "status"] == "ok").all()


def test_there_is_one_cell_for_each_training():
    assert len(extractor_cells(seeds=[0, 1, 2])) == 1
    other_size = load_protocol("smoke", ["image_size=48"]).resolve("m", "d")
    assert Autoencoder.training_fields(other_size) is None
    override = Override(models=("ann_vae",), set={"autoencoder_epochs": 2})
    protocol = load_protocol("smoke").model_copy(update={"overrides": (override,)})
    cells = extractor_cells(models="ann_vae,esvae", protocol=protocol)
    assert [cell.resolved.autoencoder_epochs for cell in cells] == [2, protocol.autoencoder_epochs]
    assert len({cell.key for cell in cells}) == 2


def test_without_a_metric_that_asks_there_is_no_cell(monkeypatch):
    monkeypatch.setattr(registry.metrics, "names", lambda: ["reconstruction_loss", "ssim"])
    assert extractor_cells() == []


def test_the_plan_names_the_cell(bench_cli, tiny_flags, tmp_path):
    _, out, _ = bench_cli("run", "--models", "ann_vae", *tiny_flags, "--dry-run",
                          "--out", tmp_path / "run")  # fmt: skip
    (line,) = [line for line in out.splitlines() if "fad_autoencoder" in line]
    assert "to do" in line
    assert "4 cells" in out


def test_an_autoencoder_that_cannot_be_had_is_a_failed_row(fad_only, real_data, tiny, tmp_path):
    shutil.copytree(real_data, tmp_path / "data")
    victim = tmp_path / "data" / "fad" / "stat_checkpoints" / "mnist_64.pth"
    victim.parent.chmod(0o755)
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    rows = bench.run(models="ann_vae", datasets="mnist", settings=tiny, out=tmp_path / "run",
                     data_root=tmp_path / "data")  # fmt: skip
    assert rows["model"].tolist()[0] == "fad_autoencoder"
    assert (rows["status"] == "failed").all()
    assert rows["reason"].str.contains("not the published file").all()


def test_a_run_directory_brings_its_autoencoder_along(fad_only, tiny, tmp_path, monkeypatch):
    """Another machine would train another one."""
    bench.run("ann_vae", settings=tiny, out=tmp_path / "first")
    (cached,) = (tmp_path / "cache" / "autoencoders").glob("*/weights.safetensors")
    weights = TrainedWeights.from_bytes(cached.read_bytes())
    changed = {name: tensor * 2 for name, tensor in weights.tensors.items()}
    other = replace(weights, tensors=changed)
    cached.write_bytes(other.to_bytes())
    bench.run("ann_vae", settings=tiny, out=tmp_path / "run")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "elsewhere"))
    rows = bench.run("ann_vae", settings=tiny, seeds=[0, 1], out=tmp_path / "run")
    found = rows[(rows["metric"] == "fad") & (rows["kind"] == "model")]
    assert list(found["seed"]) == [0, 1]
    assert set(found["extractor_sha256"]) == {other.sha256}
