"""Which epochs are scored, and on how many samples."""

import json

import pytest

import bench

COUNTING = """
import os

import torch
from toys import Steady


class Counting(Steady):
    capabilities = frozenset({"sample"})

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.optimizer = torch.optim.SGD([self.image], lr=0.5)
        self.epochs = 0

    def training_state(self):
        return {"epochs": self.epochs}

    def load_training_state(self, state):
        self.epochs = state["epochs"]

    def training_step(self, images, step):
        self.epochs = step.epoch + 1
        loss = (self.image - images.mean(0)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def sample(self, n, generator):
        with open(os.environ["COUNTS"], "a") as file:
            file.write(f"{self.epochs} {n}\\n")
        return super().sample(n, generator)
"""


@pytest.mark.parametrize(
    ("settings", "scored"),
    [
        ([], {1: 10, 2: 10, 3: 10, 4: 10, 5: 10}),
        (["scored_every=2", "scored_images=8"], {2: 8, 4: 8, 5: 8}),
        (["scored_every=9"], {5: 10}),
    ],
)
def test_epochs_are_scored_as_the_protocol_says(
    settings, scored, plugins, tiny, tmp_path, monkeypatch
):
    plugins("plugin_counting", COUNTING, models={"counting": "plugin_counting:Counting"})
    counts = tmp_path / "counts"
    monkeypatch.setenv("COUNTS", str(counts))
    settings = [*tiny, "epochs=5", "epoch_selection=best_per_metric", *settings]
    bench.run("counting", settings=settings, metrics="fad", out=tmp_path / "run")
    asked = [tuple(map(int, line.split())) for line in counts.read_text().splitlines()]
    during = {epoch: sum(n for e, n in asked if e == epoch) for epoch in range(1, 5)}
    assert {epoch: n for epoch, n in during.items() if n} == {
        epoch: n for epoch, n in scored.items() if epoch < 5
    }
    (record,) = (tmp_path / "run").glob("cells/counting-*/training.json")
    training = json.loads(record.read_text())
    scores = {n: epoch["scores"] for n, epoch in enumerate(training["epochs"], start=1)}
    assert {n for n, score in scores.items() if score} == scored.keys()
    fads = {n: scores[n]["fad"] for n in scored}
    selected = training["selected"]
    assert selected["fad"] == min(fads, key=fads.get)
    assert selected["last"] == 5
