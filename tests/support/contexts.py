"""Contexts of cells for tests of extractors, metrics and passes."""

from pathlib import Path

import torch

from bench.evaluation.context import CellContext
from bench.system.paths import Resources
from bench.system.progress import WorkReporter


def cell_context(protocol, images=None, folder="nowhere", weights=None, **changes):
    """A cell on the CPU with the same images for training and testing."""
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8) if images is None else images
    fields = {
        "dataset": "d",
        "fingerprint": "fingerprint",
        "protocol": protocol,
        "seed": 0,
        "device": torch.device("cpu"),
        "train_images": images,
        "test_images": images,
        "resources": Resources(Path(folder) / "data", weights or {}, Path(folder) / "cache"),
        "reporter": WorkReporter(),
    }
    return CellContext(**{**fields, **changes})
