"""Image grids of a cell: inputs, their reconstructions, and samples."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import save_image

from bench.batches import seed_everything, to_unit_range
from bench.evaluation import Evaluator
from bench.files import atomic
from bench.model import GenerativeModel

GRID_IMAGES = 32
GRID_COLUMNS = 8


def save_grids(model: GenerativeModel, evaluator: Evaluator, folder: Path) -> None:
    """Write ``inputs.png``, ``reconstructions.png`` and ``samples.png``, as the model is able.

    The inputs are spread evenly over the test set, so that a set sorted by class shows them all.
    """
    for name, images in _grids(model, evaluator).items():
        encoded = io.BytesIO()
        save_image(
            images, encoded, format="png", nrow=GRID_COLUMNS, normalize=True, value_range=(-1, 1)
        )
        with atomic(folder / f"{name}.png") as file:
            file.write(encoded.getvalue())


def _grids(model: GenerativeModel, evaluator: Evaluator) -> Mapping[str, Tensor]:
    seed_everything(evaluator.seed)
    generator = torch.Generator(model.device).manual_seed(evaluator.seed)
    test = evaluator.images
    spread = torch.linspace(0, len(test) - 1, min(GRID_IMAGES, len(test))).long()
    inputs = to_unit_range(test[spread.to(test.device)])
    grids = {"inputs": inputs}
    with torch.no_grad():
        if "reconstruct" in model.capabilities:
            grids["reconstructions"] = model.reconstruct(inputs, generator)
        if "sample" in model.capabilities:
            grids["samples"] = model.sample(GRID_IMAGES, generator)
    return grids
