"""The spike's step function with a rectangular surrogate gradient."""

from typing import Any

import torch
from torch import Tensor

from bench.model import SurrogateWindow


class _RectangularStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, excess: Tensor, centre: float, width: float) -> Tensor:
        ctx.save_for_backward(excess)
        ctx.window = centre, width
        return (excess > 0).to(excess.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (excess,) = ctx.saved_tensors
        centre, width = ctx.window
        inside = (excess - centre).abs() < width / 2
        return gradient * inside / width, None, None


class RectangularSurrogate:
    """``o = [u > threshold]`` with gradient ``(1 / width) * [|u - centre| < width / 2]``.

    Called with ``u - threshold``, which is what snnTorch and SpikingJelly hand to a surrogate, so
    that all backends share one rule, the case of ``u`` equal to the threshold (no spike) included.
    """

    def __init__(self, window: SurrogateWindow, threshold: float) -> None:
        self.centre = window.centre - threshold
        self.width = window.width

    def __call__(self, excess: Tensor) -> Tensor:
        """Spikes in {0, 1} for ``u - threshold`` of any shape."""
        return _RectangularStep.apply(excess, self.centre, self.width)
