"""What is recorded from the layers of a model while it runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class LayerActivity:
    """How many activations a layer put out, and how many of them were not zero.

    Attributes:
        spiking: whether its activations are spikes.
        nonzero: number of activations that are not 0.
        elements: number of activations, over images, time steps and units.
    """

    spiking: bool
    nonzero: int = 0
    elements: int = 0

    def add(self, nonzero: int, elements: int) -> None:
        """Count further activations."""
        self.nonzero += nonzero
        self.elements += elements


@contextmanager
def recording(
    spiking: Mapping[str, nn.Module], activations: Mapping[str, nn.Module]
) -> Iterator[dict[str, LayerActivity]]:
    """Count what layers put out while the context is open.

    Args:
        spiking: spiking layers by name.
        activations: all layers to count by name, spiking ones included.

    Yields:
        A dict that fills as the layers run; a layer that does not run is not in it.
    """
    recorded: dict[str, LayerActivity] = {}

    def count(name: str, output: Tensor) -> None:
        activity = recorded.setdefault(name, LayerActivity(name in spiking))
        activity.add(int(torch.count_nonzero(output)), output.numel())

    def hook(name: str) -> Any:
        return lambda module, inputs, output: count(name, output.detach())

    handles = [layer.register_forward_hook(hook(name)) for name, layer in activations.items()]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
