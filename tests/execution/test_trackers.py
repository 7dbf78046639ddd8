import json
import signal
import sys
from itertools import pairwise

import commands
import pytest
from rows import reproducible
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import bench
from bench import BenchError, registry
from bench.store.schema import OK
from bench.system.progress import Reporter, WorkReporter

WALKER = '''
import torch
from toys import Steady

ENDS = {}


def end(place):
    """Do once what a test has planned for a place in the training."""
    ENDS.pop(place, lambda: None)()


class Walker(Steady):
    """Training, losses and samples depend on the global generator."""

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.steps = 0

    def training_state(self):
        ENDS["calls"] = ENDS.get("calls", 0) + 1
        end(("state", ENDS["calls"]))
        return {"steps": self.steps}

    def load_training_state(self, state):
        self.steps = state["steps"]

    def training_step(self, images, step):
        self.steps += 1
        end(("step", self.steps))
        self.image.data += 0.1 * torch.randn_like(self.image)
        losses = {"loss": torch.rand(()), "divergence": 2.0 * self.steps}
        return losses if self.steps % 3 else {**losses, "rare": -1.0}

    def sample(self, n, generator):
        return torch.rand(n, *self.image.shape) * 2 - 1
'''
SERVICES = '''
import json

from bench.tracking.tracker import Tracker


class Lines(Tracker):
    """The smallest tracker: a file of lines."""

    def __init__(self, cell, folder, seen):
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / "lines").open("a")

    def scalars(self, seen, values):
        print(json.dumps([seen, values]), file=self.file, flush=True)

    def images(self, seen, grids):
        pass


class Full(Lines):
    """Its disk is full after the first epoch."""

    def scalars(self, seen, values):
        if seen > 64:
            raise OSError(28, "No space left on device")
        super().scalars(seen, values)


class Refused(Lines):
    """Its service does not answer."""

    def __init__(self, cell, folder, seen):
        raise ConnectionError("no answer")


class Held(Lines):
    """It writes nothing before it is asked to."""

    def __init__(self, cell, folder, seen):
        super().__init__(cell, folder, seen)
        self.held = []

    def scalars(self, seen, values):
        self.held.append(seen)

    def flush(self):
        for seen in self.held:
            super().scalars(seen, {})
        self.held.clear()


class Absent(Lines):
    """Its package is not installed."""

    @classmethod
    def missing(cls):
        return "absent is not installed: pip install absent"
'''
NAMES = ("Lines", "Full", "Refused", "Held", "Absent")


@pytest.fixture
def walker(plugins, tiny):
    """The request of a training of three epochs, each of four batches of 16 images."""
    trackers = {name.lower(): f"plugin_services:{name}" for name in NAMES}
    plugins("plugin_walker", WALKER, models={"walker": "plugin_walker:Walker"})
    plugins("plugin_services", SERVICES, trackers=trackers)
    return {"models": "walker", "settings": [*tiny, "epochs=3"], "metrics": "psnr"}


def events(out, pattern="*"):
    """What TensorBoard shows of a cell: numbers and images by name, each with its position."""
    (folder,) = out.glob(f"tensorboard/{pattern}")
    read = EventAccumulator(str(folder), {"scalars": 0, "images": 0, "tensors": 0})
    read.Reload()
    tags = read.Tags()
    scalars = {n: [(e.step, e.value) for e in read.Scalars(n)] for n in tags["scalars"]}
    images = {n: [(e.step, e.encoded_image_string) for e in read.Images(n)] for n in tags["images"]}
    return scalars | images, read


def steps(logged):
    return {name: [step for step, _ in events] for name, events in logged.items()}


def test_losses_epochs_images_and_rows_are_logged_by_training_images(walker, tmp_path):
    out = tmp_path / "run"
    rows = bench.run(**walker, out=out, log="tensorboard")
    logged, _ = events(out)
    batches, epochs = list(range(16, 193, 16)), [64, 128, 192]
    assert steps(logged) == {
        "losses/loss": batches,
        "losses/divergence": batches,
        "losses/rare": batches[2:4] + batches[5:],  # the latest value in the epoch
        "epoch": epochs,
        "epoch_losses/loss": epochs,
        "epoch_losses/divergence": epochs,
        "epoch_losses/rare": epochs,
        "images/inputs": [0],
        "images/reconstructions": epochs,
        "images/samples": epochs,
        "metrics/psnr/test": [192],
    }
    assert [value for _, value in logged["losses/divergence"]] == [2.0 * n for n in range(1, 13)]
    assert [value for _, value in logged["epoch"]] == [1, 2, 3]
    (record,) = out.glob("cells/walker*/training.json")
    means = [epoch["losses"]["loss"] for epoch in json.loads(record.read_text())["epochs"]]
    assert [value for _, value in logged["epoch_losses/loss"]] == pytest.approx(means)
    (psnr,) = rows[(rows["metric"] == "psnr") & (rows["model"] == "walker")]["value"]
    assert logged["metrics/psnr/test"] == [(192, pytest.approx(psnr))]
    for before, after in pairwise(logged["images/reconstructions"]):
        assert before[1] != after[1]


def test_scores_of_epochs_are_logged(walker, tmp_path):
    out, settings = tmp_path / "run", ["epoch_selection=best_per_metric", "scored_every=2"]
    walker["settings"] += settings
    bench.run(**{**walker, "metrics": "reconstruction_loss"}, out=out, log="tensorboard")
    logged, _ = events(out)
    (record,) = out.glob("cells/walker*/training.json")
    epochs = json.loads(record.read_text())["epochs"]
    assert logged["scores/reconstruction_loss"] == [
        (64 * n, pytest.approx(epochs[n - 1]["scores"]["reconstruction_loss"])) for n in (2, 3)
    ]


def test_settings_are_logged_as_text_and_as_hyperparameters(walker, tmp_path):
    out = tmp_path / "run"
    rows = bench.run(**walker, out=out, log="tensorboard", seeds=[4])
    _, read = events(out)
    (text,) = read.Tensors("settings/text_summary")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    (commit,) = rows[rows["model"] == "walker"]["git_commit"].unique()
    version = rows["version"].iloc[0]
    assert {
        "| model | walker |",
        "| seed | 4 |",
        "| protocol.epochs | 3 |",
        f"| environment.version | {version} |",
    } <= set(lines)
    assert commit is None or f"| environment.git_commit | {commit} |" in lines
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["model"].string_value == "walker"
    assert hparams["protocol.epochs"].number_value == 3
    assert hparams["protocol.drop_last"].bool_value is False
    assert not [name for name in hparams if name.startswith("environment.")]


@pytest.mark.parametrize("model", ["walker", "esvae", pytest.param("sgad", marks=pytest.mark.full)])
def test_the_rows_are_equal_with_and_without_a_log(model, walker, tmp_path):
    settings = [*walker["settings"], "epochs=2"]
    asked = walker | {"models": model, "settings": settings, "metrics": "psnr,firing_rate"}
    plain = bench.run(**asked, out=tmp_path / "plain")
    logged = bench.run(**asked, out=tmp_path / "logged", log="tensorboard")
    assert "ok" in set(logged[logged["model"] == model]["status"])
    assert reproducible(logged).equals(reproducible(plain))


def test_a_long_epoch_is_logged_at_about_twenty_places(walker, tmp_path):
    settings = [*walker.pop("settings"), "batch_size=1", "epochs=2"]
    bench.run(**walker, settings=settings, out=tmp_path / "run", log="tensorboard")
    logged, _ = events(tmp_path / "run")
    places = steps(logged)["losses/loss"]
    assert len(places) == 40
    assert {64, 128} <= set(places)
    assert max(b - a for a, b in pairwise(places)) <= 4


def fail():
    raise RuntimeError("the end")


# A checkpoint is saved after each batch and once more after each epoch.
@pytest.mark.parametrize(
    ("place", "batch_size"),
    [
        *((("step", number), 16) for number in (2, 7, 9)),
        *((("state", number), 16) for number in (4, 5, 10)),
        (("step", 41), 2),  # an epoch of more batches than are logged
    ],
)
def test_a_training_that_goes_on_leaves_the_log_of_an_unbroken_one(
    place, batch_size, walker, tmp_path
):
    walker["settings"].append(f"batch_size={batch_size}")
    bench.run(**walker, out=tmp_path / "whole", log="tensorboard")
    whole, _ = events(tmp_path / "whole")
    from plugin_walker import ENDS

    ENDS.clear()
    ENDS[place] = fail
    again = walker | {
        "out": tmp_path / "run",
        "log": "tensorboard",
        "checkpoint_every": "0.000001s",
    }
    rows = bench.run(**again)
    assert "RuntimeError: the end" in set(rows["reason"])
    rows = bench.run(**again)
    assert "failed" not in set(rows["status"])
    assert events(tmp_path / "run")[0] == whole


def test_what_was_logged_beyond_the_last_checkpoint_is_logged_once(walker, tmp_path):
    bench.run(**walker, out=tmp_path / "whole", log="tensorboard")
    from plugin_walker import ENDS

    again = walker | {"out": tmp_path / "run", "log": "tensorboard", "checkpoint_every": "1epochs"}
    ENDS["step", 8] = fail
    bench.run(**again)
    assert steps(events(tmp_path / "run")[0])["losses/loss"][-1] == 7 * 16
    bench.run(**again)
    whole, _ = events(tmp_path / "whole")
    assert events(tmp_path / "run")[0] == whole
    assert len(list(tmp_path.glob("run/tensorboard/*/*"))) == 3


def test_what_a_tracker_holds_back_is_written_before_each_checkpoint(walker, tmp_path):
    from plugin_walker import ENDS

    ENDS["step", 8] = fail
    bench.run(**walker, out=tmp_path / "run", log="held", checkpoint_every="1epochs")
    (path,) = tmp_path.glob("run/held/*/lines")
    assert path.read_text().splitlines() == ["[16, {}]", "[32, {}]", "[48, {}]", "[64, {}]"]


def test_a_training_without_checkpoint_begins_its_log_again(walker, tmp_path):
    bench.run(**walker, out=tmp_path / "whole", log="tensorboard")
    from plugin_walker import ENDS

    again = walker | {"out": tmp_path / "run", "log": "tensorboard", "checkpoint_every": "never"}
    ENDS["step", 8] = fail
    bench.run(**again)
    bench.run(**again)
    assert events(tmp_path / "run")[0] == events(tmp_path / "whole")[0]


def test_a_killed_process_leaves_a_log_that_goes_on(walker, tiny_flags, tmp_path):
    bench.run(**walker, out=tmp_path / "whole", log="tensorboard")
    flags = ["--models", "walker", *tiny_flags, "--set", "epochs=3", "--metrics", "psnr",
             "--log", "tensorboard", "--checkpoint-every", "1epochs", "--jobs", "1"]  # fmt: skip
    out = tmp_path / "run"
    (site,) = tmp_path.glob("site")
    source = (site / "plugin_walker.py").read_text()
    deadly = "import os\nENDS['step', 8] = lambda: os.kill(os.getpid(), 9)\n"
    (site / "plugin_walker.py").write_text(source + deadly)
    code, told, err = commands.run("run", *flags, "--out", out, paths=[site])
    assert code == -signal.SIGKILL, told + err
    (site / "plugin_walker.py").write_text(source)
    code, _, err = commands.run("run", *flags, "--out", out, paths=[site])
    assert code == 0, err
    assert events(out)[0] == events(tmp_path / "whole")[0]


def files(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("tensorboard/**/*")}


def test_a_finished_cell_is_not_logged_again_and_new_rows_join_the_others(
    walker, bench_cli, tmp_path
):
    asked = walker | {"out": tmp_path / "run", "log": ["tensorboard"]}
    bench.run(**asked)
    before = files(tmp_path / "run")
    bench.run(**asked)
    assert files(tmp_path / "run") == before
    first, _ = events(tmp_path / "run")
    bench.run(**asked | {"metrics": "psnr,ssim"})
    second, _ = events(tmp_path / "run")
    assert second.pop("metrics/ssim/test")[0][0] == 192
    assert second == first
    code, out, _ = bench_cli("doctor", tmp_path / "run")
    assert (code, "no damage found" in out) == (0, True)
    code, _, err = bench_cli("merge", tmp_path / "run", "--out", tmp_path / "merged")
    assert code == 0, err


def test_without_log_nothing_is_written(walker, tmp_path):
    bench.run(**walker, out=tmp_path / "run")
    assert not list(tmp_path.glob("run/tensorboard"))


class Warnings(Reporter):
    """Keeps the warnings about all cells."""

    def __init__(self):
        self.texts = []

    def started(self, index, total, cell):
        return _CellWarnings(self.texts)


class _CellWarnings(WorkReporter):
    def __init__(self, texts):
        self.texts = texts

    def warned(self, text):
        self.texts.append(text)


def test_a_tracker_that_fails_is_left_out_with_one_warning(walker, tmp_path):
    reporter, out = Warnings(), tmp_path / "run"
    rows = bench.run(**walker, out=out, log="refused,full,lines,tensorboard", reporter=reporter)
    assert reporter.texts == [
        "the tracker refused failed and logs no more: ConnectionError: no answer",
        "the tracker full failed and logs no more: OSError: [Errno 28] No space left on device",
    ]
    plain = bench.run(**walker, out=tmp_path / "plain")
    assert reproducible(rows).equals(reproducible(plain))
    (log,) = out.glob("cells/walker*/cell.log")
    assert "no answer" in log.read_text()
    seen = {
        name: [json.loads(line)[0] for line in path.read_text().splitlines()]
        for name in ("full", "lines")
        for path in out.glob(f"{name}/*/lines")
    }
    assert seen["full"] == [16, 32, 48, 64]
    assert seen["lines"] == [*range(16, 193, 16), 192]
    assert len(events(out)[0]["losses/loss"]) == 12


def test_a_model_that_cannot_be_drawn_is_trained_all_the_same(walker, tmp_path, monkeypatch):
    import plugin_walker

    monkeypatch.setattr(plugin_walker.Walker, "reconstruct", lambda *given: fail())
    reporter = Warnings()
    asked = walker | {"metrics": "psnr", "out": tmp_path / "run"}
    bench.run(**asked, log="tensorboard", reporter=reporter)
    assert reporter.texts == ["no images for the trackers: RuntimeError: the end"]
    logged, _ = events(tmp_path / "run")
    assert steps(logged)["epoch"] == [64, 128, 192]
    assert "images/samples" not in logged


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "Unknown tracker 'tensorbord'. Did you mean: tensorboard?"),
        (
            "absent",
            "The tracker 'absent' cannot be used: absent is not installed: pip install absent.",
        ),
    ],
)
def test_a_tracker_that_cannot_be_used_is_an_error_before_anything_is_written(
    name, message, walker, bench_cli, tmp_path
):
    code, _, err = bench_cli("run", "--log", f"lines,{name}", "--out", tmp_path / "run")
    assert (code, message in err) == (2, True)
    with pytest.raises(BenchError, match=name):
        bench.run(log=name, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard_says_how_to_install_it(monkeypatch):
    tracker = registry.trackers.load("tensorboard")
    assert tracker.missing() is None
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert tracker.missing() == "tensorboard is not installed: pip install 'tensorboard'"


@pytest.mark.full
def test_worker_processes_log_each_cell_in_its_folder(walker, tiny_flags, tmp_path):
    flags = ["--models", "walker", *tiny_flags, "--metrics", "psnr", "--log", "tensorboard,full",
             "--set", "epochs=3"]  # fmt: skip
    out, (site,) = tmp_path / "run", tmp_path.glob("site")
    code, told, err = commands.run(
        "run", *flags, "--seeds", "0,1", "--jobs", "2", "--out", out, paths=[site]
    )
    assert code == 0, err
    assert told.count("warning: the tracker full failed") == 2
    for seed in (0, 1):
        alone = tmp_path / f"alone{seed}"
        bench.run(**walker, seeds=[seed], out=alone, log="tensorboard")
        assert events(out, f"walker-*-s{seed}-*")[0] == events(alone)[0]


@pytest.mark.full
def test_cells_on_a_cluster_are_logged_in_the_run_directory(walker, tiny_flags, tmp_path):
    pytest.importorskip("ray")
    flags = ["--models", "walker", *tiny_flags, "--set", "epochs=3", "--metrics", "psnr",
             "--log", "tensorboard,full"]  # fmt: skip
    out, (site,) = tmp_path / "run", tmp_path.glob("site")
    code, told, err = commands.run("cluster", "run", *flags, "--out", out, paths=[site])
    assert code == 0, err
    assert told.count("warning: the tracker full failed") == 1
    bench.run(**walker, out=tmp_path / "alone", log="tensorboard")
    assert events(out)[0] == events(tmp_path / "alone")[0]
    rows = bench.load_results(out)
    assert OK in set(rows["status"])
