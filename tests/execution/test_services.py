"""Trackers of services, without their services: what they write on this machine."""

import json
from importlib.util import find_spec

import pytest

import bench

needs = {
    name: pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("wandb", "mlflow")
}
STEPPING = '''
import torch
from toys import Steady

FAILS = []


class Stepping(Steady):
    """Its losses count the steps; it fails once at each step that a test names."""

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.register_buffer("steps", torch.zeros(()))

    def training_step(self, images, step):
        self.steps += 1
        if int(self.steps) in FAILS:
            FAILS.remove(int(self.steps))
            raise RuntimeError("the end")
        return {"loss": self.steps.clone()}
'''


@pytest.fixture
def asked(plugins, tiny, tmp_path):
    """The request of a training of three epochs, each of four batches of 16 images."""
    plugins("plugin_stepping", STEPPING, models={"stepping": "plugin_stepping:Stepping"})
    settings = [*tiny, "epochs=3"]
    return {"models": "stepping", "settings": settings, "metrics": "psnr", "out": tmp_path / "run"}


def records(path):
    """The records of a file of W&B: a log in blocks of 32 KiB, after seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, part = path.read_bytes(), 7, b""
    while at < len(content):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b""


def key_of(item):
    return item.key or "/".join(item.nested_key)


@needs["wandb"]
def test_wandb_gets_settings_losses_images_and_values(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    rows = bench.run(**asked, log="wandb")
    assert "failed" not in set(rows["status"])
    (path,) = tmp_path.glob("run/wandb/stepping-*/wandb/offline-*/*.wandb")
    found = list(records(path))
    (run,) = (record.run for record in found if record.WhichOneof("record_type") == "run")
    config = {key_of(each): json.loads(each.value_json) for each in run.config.update}
    assert config["model"] == "stepping"
    assert config["protocol.epochs"] == 3
    assert run.project == "spikegen-bench"
    assert run.run_id in path.parents[2].name
    history = [
        {key_of(each): json.loads(each.value_json) for each in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]
    losses = [(e["images_seen"], e["losses/loss"]) for e in history if "losses/loss" in e]
    assert losses == [(16 * n, n) for n in range(1, 13)]
    assert [e["images_seen"] for e in history if "epoch" in e] == [64, 128, 192]
    assert len(list(path.parent.glob("files/media/images/images/reconstructions*.png"))) == 3
    summary = {}
    for record in found:
        summary |= {key_of(e): json.loads(e.value_json) for e in record.summary.update}
    (psnr,) = rows[(rows["metric"] == "psnr") & (rows["model"] == "stepping")]["value"]
    assert summary["metrics/psnr/test"] == pytest.approx(psnr)


@needs["mlflow"]
def test_mlflow_gets_settings_losses_images_and_values_once(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    from mlflow import MlflowClient
    from plugin_stepping import FAILS

    FAILS.append(8)
    bench.run(**asked, log="mlflow", checkpoint_every="1epochs")
    rows = bench.run(**asked, log="mlflow")
    assert "failed" not in set(rows["status"])
    client = MlflowClient()
    experiment = client.get_experiment_by_name("spikegen-bench").experiment_id
    (run,) = client.search_runs([experiment])
    number = run.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["model"] == "stepping"
    assert run.data.params["protocol.epochs"] == "3"
    losses = [(e.step, e.value) for e in client.get_metric_history(number, "losses/loss")]
    assert losses == [(16 * n, n) for n in range(1, 13)]
    assert [e.step for e in client.get_metric_history(number, "epoch")] == [64, 128, 192]
    drawn = [each.path for each in client.list_artifacts(number, "images")]
    assert len([each for each in drawn if "reconstructions" in each and "png" in each]) == 3
    (psnr,) = rows[(rows["metric"] == "psnr") & (rows["model"] == "stepping")]["value"]
    assert run.data.metrics["metrics/psnr/test"] == pytest.approx(psnr)
