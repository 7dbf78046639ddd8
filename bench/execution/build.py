"""The model of a cell, as every command builds it."""

import torch

from bench import registry
from bench.backend import SpikingBackend
from bench.model import GenerativeModel
from bench.plan import Cell
from bench.store.schema import NO_BACKEND
from bench.system.random_state import seed_everything


def neuron_implementation(cell: Cell, device: torch.device) -> str | None:
    """Which code computes the cell's neurons on ``device``; None without spiking neurons.

    Raises:
        RuntimeError: the backend cannot run there.
    """
    backend = _backend(cell)
    return backend.implementation(device) if backend else None


def build_model(cell: Cell, image_shape: tuple[int, ...], device: torch.device) -> GenerativeModel:
    """The cell's model on ``device``, untrained, from the cell's seed.

    Args:
        cell: one that can run.
        image_shape: of its images, ``(C, H, W)``.
        device: where its parameters shall live.
    """
    seed_everything(cell.seed)
    model_class = registry.models.load(cell.model)
    model: GenerativeModel = model_class(image_shape, cell.resolved, _backend(cell))
    return model.to(device)


def _backend(cell: Cell) -> SpikingBackend | None:
    return None if cell.backend == NO_BACKEND else registry.backends.load(cell.backend)()
