"""The model of a cell, as every command builds it."""

import torch

from bench import registry
from bench.backend import SpikingBackend
from bench.model import GenerativeModel
from bench.plan import Cell
from bench.store.schema import NO_BACKEND
from bench.system.random_state import seed_everything


def neuron_implementation(cell: Cell, device: torch.device) -> str | None:
    """Return the code that computes the cell's neurons on ``device``; None without neurons.

    Raises:
        RuntimeError: the backend cannot run on this device.
    """
    backend = _backend(cell)
    return backend.implementation(device) if backend else None


def build_model(cell: Cell, image_shape: tuple[int, ...], device: torch.device) -> GenerativeModel:
    """Return the cell's model on ``device``, untrained, built from the cell's seed.

    Args:
        cell: cell that can run.
        image_shape: shape of its images, ``(C, H, W)``.
        device: device of the parameters.

    Raises:
        SkippedError: the backend cannot build the model's neuron.
    """
    seed_everything(cell.seed)
    model_class = registry.models.load(cell.model)
    model: GenerativeModel = model_class(image_shape, cell.resolved, _backend(cell))
    return model.to(device)


def _backend(cell: Cell) -> SpikingBackend | None:
    return None if cell.backend == NO_BACKEND else registry.backends.load(cell.backend)()
