import re

import pytest
from tiny import FEW_METRICS

import bench

METRICS = "reconstruction_*,parameter_count,*_throughput,firing_rate,synaptic_operations_dense"
SOURCE = '''
import time

import torch
import toys
from bench.errors import SkippedError
from torch import nn


class Steady(toys.Steady):
    """Counts its steps, and lets others have another loss."""

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.steps = 0

    def training_step(self, images, step):
        self.steps += 1
        return {"loss": self.loss(step)}

    def loss(self, step):
        return 1.0


class Diverging(Steady):
    """Its loss becomes NaN in the third batch."""

    def loss(self, step):
        return float("nan") if self.steps == 3 else 1.0


class Raising(Steady):
    """Raises when it samples."""

    def sample(self, n, generator):
        raise RuntimeError("no samples today")


class Unbuildable(Steady):
    """Raises when it is built."""

    def __init__(self, image_shape, protocol, backend):
        raise ValueError("cannot be built")


class Unsupported(Steady):
    """Cannot be built here, and says why."""

    def __init__(self, image_shape, protocol, backend):
        raise SkippedError("needs a neuron that this backend cannot build")


class Sampler(Steady):
    """Can only sample."""

    capabilities = frozenset({"sample"})

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.gain = nn.Linear(1, 1)

    def sample(self, n, generator):
        return super().sample(n, generator) + self.gain(torch.zeros(n, 1))[..., None, None]


class Colour(Steady):
    """Takes colour images only."""

    @classmethod
    def unsupported(cls, image_shape, protocol):
        return None if image_shape[0] == 3 else "colour images only"


class Blank(Steady):
    """Its reconstructions are NaN."""

    def reconstruct(self, images, generator):
        return images * float("nan")


class Grey(Steady):
    """Gives images of another shape than it was shown."""

    def reconstruct(self, images, generator):
        return images[:, :, :1]


class Bright(Steady):
    """Gives images beyond [-1, 1]."""

    def sample(self, n, generator):
        return 255 + self.image.expand(n, *self.image.shape)


class Improving(Steady):
    """Its test loss and reconstructions are best after the second of three epochs."""

    capabilities = frozenset({"sample", "reconstruct", "test_loss"})

    def training_step(self, images, step):
        epoch = int(step.progress * 3) + 1
        with torch.no_grad():
            self.image.fill_({1: 0.5, 2: -1.0, 3: 0.9}[epoch])
        return {"loss": 1.0}

    def test_loss(self, images, step, generator):
        return (self.image - images).square().mean()


class Compiled(Steady):
    """Takes half a second for the first training step of the process."""

    compiled = False

    def training_step(self, images, step):
        if not Compiled.compiled:
            time.sleep(0.5)
        Compiled.compiled = True
        return super().training_step(images, step)
'''


@pytest.fixture
def faulty(plugins):
    names = re.findall(r"class (\w+)\(", SOURCE)
    plugins(
        "plugin_faulty", SOURCE, models={name.lower(): f"plugin_faulty:{name}" for name in names}
    )


@pytest.fixture
def run(faulty, tiny, tmp_path):
    """Run models with some metrics; gives the rows of these."""

    def run(models, *settings):
        settings = [setting for setting in tiny if "fsvae" not in setting] + list(settings)
        rows = bench.run(models, settings=settings, metrics=METRICS, out=tmp_path / "run")
        return rows[rows["status"] != "not_asked"]

    return run


def test_a_diverging_model_fails_its_own_cell_with_the_reason(run):
    rows = run("diverging,steady")
    failed = rows[rows["model"] == "diverging"]
    assert set(failed["status"]) == {"failed"}
    assert failed["value"].isna().all()
    reason = "TrainingDivergedError: the loss became nan in epoch 1, batch 3"
    assert set(failed["reason"]) == {reason}
    assert "failed" not in set(rows[rows["model"] == "steady"]["status"])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("raising", "no samples today"),
        ("unbuildable", "cannot be built"),
        ("grey", r"reconstruct gave images of shape \(24, 1, 1, 32\), expected \(24, 1, 32, 32\)"),
        ("bright", r"sample gave values in 255..255, expected \[-1, 1\]"),
    ],
)
def test_a_model_that_raises_fails_its_own_cell(run, tmp_path, model, reason):
    rows = run(f"{model},steady")
    failed = rows[rows["model"] == model]
    assert set(failed["status"]) == {"failed"}
    assert failed["reason"].str.contains(reason).all()
    (log,) = (tmp_path / "run" / "cells").glob(f"{model}*/cell.log")
    assert "Traceback" in log.read_text()
    assert "failed" not in set(rows[rows["model"] == "steady"]["status"])


def test_a_model_that_cannot_be_built_here_is_skipped_with_its_reason(run, tmp_path):
    rows = run("unsupported,steady")
    skipped = rows[rows["model"] == "unsupported"]
    assert set(skipped["status"]) == {"skipped"}
    assert set(skipped["reason"]) == {"needs a neuron that this backend cannot build"}
    assert skipped["value"].isna().all()
    (log,) = (tmp_path / "run" / "cells").glob("unsupported*/cell.log")
    assert "Traceback" not in log.read_text()
    assert {"failed", "skipped"}.isdisjoint(rows[rows["model"] == "steady"]["status"])


def test_a_value_that_is_not_a_number_is_a_failed_row(run):
    rows = run("blank")
    loss = rows[rows["metric"] == "reconstruction_loss"]
    assert loss["value"].isna().all()
    reason = "reconstruct of Blank gave values that are NaN, expected finite values"
    assert (loss["status"].item(), loss["reason"].item()) == ("failed", reason)
    assert (rows[rows["metric"] == "parameter_count"]["status"] == "ok").all()


def test_the_exit_code_says_that_a_cell_failed(faulty, bench_cli, tiny_flags, tmp_path):
    flags = [*tiny_flags[:-2], "--metrics", "psnr", "--out", tmp_path / "run"]
    code, out, _ = bench_cli("run", "--models", "diverging,steady", *flags)
    assert code == 1
    assert "failed: diverging/torch/digits/seed 0: TrainingDivergedError" in out


def test_a_failed_cell_is_tried_again(run, tmp_path, monkeypatch):
    run("diverging")
    import plugin_faulty

    monkeypatch.setattr(plugin_faulty.Diverging, "loss", lambda self, step: 1.0)
    rows = run("diverging")
    assert "failed" not in set(rows["status"])


def test_what_is_done_once_in_a_process_is_in_no_throughput(run):
    rows = run("compiled")
    throughput = rows[rows["metric"] == "training_throughput"]
    assert throughput["value"].item() > throughput["n"].item() / 0.5


def test_what_a_model_cannot_do_is_not_applicable(run):
    rows = run("sampler")
    status = rows.groupby("metric")["status"].first()
    assert status["reconstruction_loss"] == "not_applicable"
    assert status["firing_rate"] == "not_applicable"
    assert status["sampling_throughput"] == "ok"
    assert status["parameter_count"] == "ok"
    reasons = rows[rows["metric"] == "reconstruction_loss"]["reason"]
    assert reasons.item() == "not for Sampler: it cannot reconstruct"
    operations = rows[rows["metric"] == "synaptic_operations_dense"]
    counted = operations.set_index("split")
    assert counted.loc["generated", ["status", "value"]].tolist() == ["ok", 1.0]
    # Its training step runs no layer.
    assert counted.loc["train", "status"] == "not_applicable"


def test_a_model_that_cannot_take_the_images_is_skipped_and_strict_minds(
    faulty, bench_cli, tiny_flags, tmp_path
):
    arguments = ["run", "--models", "colour,steady", *tiny_flags[:-2], "--metrics", "psnr",
                 "--out", tmp_path / "run"]  # fmt: skip
    code, out, _ = bench_cli(*arguments)
    assert code == 0
    assert "skipped: colour/torch/digits/seed 0: colour images only" in out
    assert bench_cli(*arguments, "--strict")[0] == 1


@pytest.mark.parametrize(
    ("selection", "epochs"),
    [
        ("last", {"reconstruction_loss": 3, "parameter_count": 3}),
        ("best_test_loss", {"reconstruction_loss": 2, "parameter_count": 2}),
        ("best_per_metric", {"reconstruction_loss": 2, "parameter_count": 3}),
    ],
)
def test_epoch_selection_scores_the_epoch_that_it_names(run, selection, epochs):
    rows = run("improving", f"epoch_selection={selection}", "epochs=3")
    scored = rows.groupby("metric")["epoch"].first()
    assert {metric: scored[metric] for metric in epochs} == epochs
    loss = rows[rows["metric"] == "reconstruction_loss"]["value"].item()
    last = run("improving", "epoch_selection=last", "epochs=3")
    if selection != "last":
        assert loss < last[last["metric"] == "reconstruction_loss"]["value"].item()


def test_what_the_selection_of_an_epoch_is_worth(run):
    rows = run("improving", "epoch_selection=best_per_metric", "epochs=3")
    gains = rows[rows["metric"] == "reconstruction_loss_selection_gain"]
    assert list(gains["epoch_selection"]) == ["best_test_loss", "best_per_metric"]
    best = rows[rows["metric"] == "reconstruction_loss"]["value"].item()
    last = run("improving", "epoch_selection=last", "epochs=3")
    difference = last[last["metric"] == "reconstruction_loss"]["value"].item() - best
    assert list(gains["value"]) == pytest.approx([difference, difference])
    (gain,) = last[last["metric"] == "reconstruction_loss_selection_gain"].itertuples()
    assert (gain.status, gain.epoch_selection) == ("not_applicable", "last")
    assert "keeps the last epoch only" in gain.reason


def test_a_selection_that_takes_the_last_epoch_is_worth_nothing(run):
    rows = run("improving", "epoch_selection=best_per_metric", "epochs=1")
    gains = rows[rows["metric"] == "reconstruction_loss_selection_gain"]["value"]
    assert [str(gain) for gain in gains] == ["0.0", "0.0"]


def test_best_test_loss_needs_a_model_that_has_one(run):
    rows = run("steady,improving", "epoch_selection=best_test_loss")
    assert "skipped" not in set(rows[rows["model"] == "improving"]["status"])
    rows = rows[rows["model"] == "steady"]
    assert set(rows["status"]) == {"skipped"}
    assert rows["reason"].str.startswith("it has no test loss to select epochs by").all()


def test_a_broken_plugin_is_skipped_under_all_and_an_error_by_name(
    plugins, bench_cli, tiny_flags, tmp_path, monkeypatch
):
    plugins("plugin_broken", "raise OSError('no licence')", models={"broken": "plugin_broken:X"})
    monkeypatch.setattr(bench.registry.models, "names", lambda: ["ann_vae", "broken"])
    common = ["run", *tiny_flags, "--out", tmp_path / "run"]
    common += ["--metrics", "psnr"]
    code, out, _ = bench_cli(*common, "--models", "all")
    assert code == 0
    assert "broken/unknown/digits/seed 0: The model 'broken' cannot be imported" in out
    code, _, err = bench_cli(*common, "--models", "broken")
    assert code == 2
    assert "no licence" in err


def test_under_all_a_dataset_that_cannot_be_had_is_skipped(
    bench_cli, tiny_flags, tmp_path, monkeypatch
):
    def unreachable(*arguments, **options):
        raise OSError("network is unreachable")

    monkeypatch.setattr("socket.create_connection", unreachable)
    (tmp_path / "data").mkdir()
    arguments = ["run", "--models", "ann_vae", "--datasets", "all", *tiny_flags]
    arguments += ["--metrics", FEW_METRICS]
    arguments += ["--data-root", tmp_path / "data", "--out", tmp_path / "run"]
    code, out, _ = bench_cli(*arguments)
    assert code == 0
    rows = bench.load_results(tmp_path / "run")
    skipped = rows[rows["status"] == "skipped"]
    assert set(skipped["dataset"]) == {"mnist", "fashion_mnist", "cifar10", "celeba"}
    here = rows[rows["dataset"] == "digits"]
    assert set(here["status"]) == {"ok", "not_applicable", "not_asked"}
    for name in ("mnist", "fashion_mnist", "cifar10", "celeba"):
        assert f"skipped: ann_vae/torch/{name}/seed 0: The dataset '{name}'" in out
    assert bench_cli(*arguments, "--strict")[0] == 1


def test_skipped_rows_go_once_the_dataset_is_here(real_data, tiny, tmp_path, monkeypatch):
    import shutil

    def unreachable(*arguments, **options):
        raise OSError("network is unreachable")

    monkeypatch.setattr("socket.create_connection", unreachable)
    root = tmp_path / "data"
    root.mkdir()
    common = {"settings": tiny, "metrics": "psnr", "data_root": root, "out": tmp_path / "run"}
    bench.run(models="ann_vae", datasets="all", **common)
    shutil.copytree(real_data / "MNIST", root / "MNIST")
    bench.run(models="ann_vae", datasets="mnist", **common)
    rows = bench.load_results(tmp_path / "run")
    assert "skipped" not in set(rows[rows["dataset"] == "mnist"]["status"])
    assert set(rows[rows["dataset"] == "cifar10"]["status"]) == {"skipped", "not_asked"}
