"""Construction of a cell's model, the same for every command."""

import torch

from bench import registry
from bench.backend import SpikingBackend, UnsupportedNeuronError
from bench.errors import SkippedError
from bench.model import GenerativeModel
from bench.plan.cells import Cell
from bench.registry import OTHER_BACKEND
from bench.store.schema import NO_BACKEND
from bench.system.devices import lacking_precision
from bench.system.random_state import seed_everything


def neuron_implementation(cell: Cell, device: torch.device) -> str | None:
    """Return which code computes the cell's neurons on a device; None without spiking neurons.

    Raises:
        SkippedError: if the backend cannot run on the device.
    """
    backend = _backend(cell)
    if backend is None:
        return None
    try:
        return backend.implementation(device)
    except RuntimeError as error:
        raise SkippedError(
            f"the backend {cell.backend} cannot run here ({error}): {OTHER_BACKEND}"
        ) from error


def build_model(cell: Cell, image_shape: tuple[int, ...], device: torch.device) -> GenerativeModel:
    """Build the untrained model of a cell from the cell's seed.

    Args:
        cell: cell that is not skipped.
        image_shape: shape of one image, (C, H, W).
        device: device of the model's parameters.

    Raises:
        SkippedError: if the model or its backend cannot run here, or the device cannot compute in
            the protocol's precision.
    """
    lacking = lacking_precision(cell.resolved.precision, device)
    if lacking:
        raise SkippedError(lacking)
    seed_everything(cell.seed)
    model_class = registry.models.load(cell.registered_model)
    classes = {}
    if model_class.class_conditional:
        assert cell.info is not None
        assert cell.info.class_counts is not None
        classes = {"classes": len(cell.info.class_counts)}
    try:
        model: GenerativeModel = model_class(image_shape, cell.resolved, _backend(cell), **classes)
    except UnsupportedNeuronError as error:
        raise SkippedError(f"{error}: {OTHER_BACKEND}") from error
    return model.to(device)


def _backend(cell: Cell) -> SpikingBackend | None:
    return None if cell.backend == NO_BACKEND else registry.backends.load(cell.backend)()
