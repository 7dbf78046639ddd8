"""The papers' synapses, fast on a CPU where the channels lie last.

Currents of spikes are sums of weights, which are looked up where that pays. PyTorch's own weight
and bias gradients of a channels-last transposed convolution take about three times as long as those
of the convolution that it transposes. The values are the same, up to the order of sums.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd

from baselines.fused.lazy_tensors import Spikes, bytes_of

_STRIDE, _PADDING, _DILATION, _NONE = [2, 2], [1, 1], [1, 1], [0, 0]
# A table costs more than it saves for fewer pixels, or for gradients of fewer rows.
PIXELS_WORTH_A_TABLE = 512
ROWS_WORTH_LOOKING_BACK = 128


class SpikeLinear(nn.Linear):
    """A fully connected layer, whose inputs may also be spikes in bytes ``(R, C)``."""

    def forward(self, input: Tensor) -> Tensor:
        """``(R, C)`` to ``(R, C')``."""
        rounded = torch.is_autocast_enabled("cpu")
        if isinstance(input, Spikes) and not rounded:
            return _Connection.apply(input, self.weight, self.bias)
        if input.dtype != torch.uint8:
            return super().forward(input)
        from baselines.fused.cpu import lookup

        return lookup.connect(input, self.weight, self.bias, rounded)


class Downsampling(nn.Conv2d):
    """A convolution that halves height and width.

    Args:
        inputs: channels.
        outputs: channels.
        of_spikes: whether all inputs are 0 or 1. They may then come in bytes, where no gradient
            flows; else a byte of each is kept for the gradient.
    """

    def __init__(self, inputs: int, outputs: int, of_spikes: bool = False) -> None:
        super().__init__(inputs, outputs, kernel_size=3, stride=2, padding=1)
        self.of_spikes = of_spikes

    def forward(self, input: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', H / 2, W / 2)``."""
        if input.dtype == torch.uint8:
            return _of_bytes(input, self.weight, self.bias, False)
        if not _channels_last_on_cpu(input, self.weight):
            return super().forward(input)
        return _Convolution.apply(input, self.weight, self.bias, False, self.of_spikes)


class Upsampling(nn.ConvTranspose2d):
    """A transposed convolution that doubles height and width; see :class:`Downsampling`."""

    def __init__(self, inputs: int, outputs: int, of_spikes: bool = False) -> None:
        super().__init__(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)
        self.of_spikes = of_spikes

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', 2 H, 2 W)``."""
        if input.dtype == torch.uint8:
            return _of_bytes(input, self.weight, self.bias, True)
        if output_size is not None or not _channels_last_on_cpu(input, self.weight):
            return super().forward(input, output_size)
        return _Convolution.apply(input, self.weight, self.bias, True, self.of_spikes)


def _channels_last_on_cpu(input: Tensor, weight: Tensor) -> bool:
    """With one channel weights lie both ways: then PyTorch's own gradients do."""
    last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return last and input.device.type == "cpu"


def _of_bytes(spikes: Tensor, weight: Tensor, bias: Any, transposed: bool) -> Tensor:
    """The currents, perhaps not computed yet; see :class:`baselines.fused.cpu.lookup.Currents`."""
    rounded = torch.is_autocast_enabled("cpu")
    if not _worth_a_table(spikes):
        dtype = torch.bfloat16 if rounded else weight.dtype
        return _dense(spikes.to(dtype), weight.to(dtype), bias.to(dtype), transposed)
    from baselines.fused.cpu import lookup

    return lookup.convolve(spikes, weight, bias, transposed, rounded)


def _worth_a_table(images: Tensor) -> bool:
    """Whether they are spikes in bytes, and enough of them."""
    pixels = images.numel() // images.shape[1]
    return images.dtype == torch.uint8 and pixels >= PIXELS_WORTH_A_TABLE


def _dense(input: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    added = [1, 1] if transposed else _NONE
    return torch.convolution(
        input, weight, bias, _STRIDE, _PADDING, _DILATION, transposed, added, 1
    )


class _Convolution(torch.autograd.Function):
    """Input, weight and bias gradients one by one, each in its fastest form."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, transposed: bool, of_spikes: bool
    ) -> Tensor:
        input = bytes_of(input) if of_spikes else input
        input = input.contiguous(memory_format=torch.channels_last)
        ctx.transposed = transposed
        ctx.save_for_backward(input, weight)
        if not of_spikes:
            return _dense(input, weight, bias, transposed)
        if weight.dtype == torch.bfloat16:
            return _dense(input.to(weight.dtype), weight, bias, transposed)
        return _of_bytes(input, weight, bias, transposed)

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        input, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = _input_gradient(gradient, weight, ctx.transposed)
        if _worth_a_table(input) and weight.dtype != torch.bfloat16:
            from baselines.fused.cpu import weight_gradients

            of_weight, of_bias = weight_gradients.convolution_gradients(
                input, gradient, ctx.transposed
            )
        else:
            # A transposed convolution's weight gradient is that of the one which it transposes.
            input = input.to(weight.dtype)
            first, second = (input, gradient) if ctx.transposed else (gradient, input)
            of_weight = _weight_gradient(first, second, weight)
            of_bias = gradient.sum((0, 2, 3))
        return of_input, of_weight, of_bias, None, None


def _input_gradient(gradient: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    from baselines.fused.cpu import input_gradients

    if input_gradients.are_faster(gradient, weight, transposed):
        return input_gradients.convolution_gradient(gradient, weight, transposed)
    return _dense(gradient, weight, None, not transposed)


def _weight_gradient(gradient: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(
        gradient, input, weight, None, _STRIDE, _PADDING, _DILATION, False, _NONE, 1, mask
    )[1]


class _Connection(torch.autograd.Function):
    """A linear layer of spikes in bytes."""

    @staticmethod
    def forward(ctx: Any, input: Spikes, weight: Tensor, bias: Tensor) -> Tensor:
        from baselines.fused.cpu import lookup

        ctx.save_for_backward(input.fired, weight)
        return lookup.connect(input.fired, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        spikes, weight = ctx.saved_tensors
        of_input = gradient @ weight if ctx.needs_input_grad[0] else None
        if len(spikes) < ROWS_WORTH_LOOKING_BACK:
            return of_input, gradient.T @ spikes.to(gradient.dtype), gradient.sum(0)
        from baselines.fused.cpu import weight_gradients

        return of_input, *weight_gradients.linear_gradients(spikes, gradient)
