"""The papers' synapses, fast on a CPU with the channels last in memory.

Currents of spikes are sums of weights, which are looked up in tables where that pays. PyTorch's own
weight and bias gradients of a channels-last transposed convolution take about three times as long
as for the convolution that it transposes; here each gradient is computed in its fastest form.
Values equal PyTorch's up to the order of sums.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd

from baselines.fused.cpu import input_gradients, lookup, periodic, weight_gradients, windows
from baselines.fused.cpu.lazy_tensors import ByteSpikes, bytes_of
from baselines.fused.cpu.periodic import PeriodicSpikes, PooledSpikes
from baselines.fused.cpu.simd import LANES

_STRIDE, _PADDING, _DILATION, _NONE = [2, 2], [1, 1], [1, 1], [0, 0]
# A table costs more than it saves for fewer pixels, or for gradients of fewer rows.
PIXELS_WORTH_A_TABLE = 512
ROWS_WORTH_LOOKING_BACK = 128


class SpikeLinear(nn.Linear):
    """A fully connected layer that also takes uint8 spikes ``(R, C)``."""

    def forward(self, input: Tensor) -> Tensor:
        """Return currents ``(R, C')`` for inputs ``(R, C)``."""
        rounded = torch.is_autocast_enabled("cpu")
        if isinstance(input, PeriodicSpikes) and not rounded and len(self.weight) % LANES == 0:
            return _PeriodicConnection.apply(input, self.weight, self.bias)
        if isinstance(input, ByteSpikes) and not rounded:
            return _Connection.apply(input, self.weight, self.bias)
        if input.dtype != torch.uint8:
            return super().forward(input)
        return lookup.connect(input, self.weight, self.bias, rounded)


class Downsampling(nn.Conv2d):
    """A convolution that halves height and width.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        spiking_input: True if all inputs are 0 or 1. They can then be uint8 where no gradient
            flows; elsewhere a uint8 copy is kept for the weight gradient.
        normalised: True if tdBN follows. On CUDA the bias is then left to it; see
            :func:`bias_left_out`.
    """

    def __init__(
        self, inputs: int, outputs: int, spiking_input: bool = False, normalised: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel_size=3, stride=2, padding=1)
        self.spiking_input, self.normalised = spiking_input, normalised

    def forward(self, input: Tensor) -> Tensor:
        """Return currents ``(N, C', H / 2, W / 2)`` for inputs ``(N, C, H, W)``."""
        if input.dtype == torch.uint8:
            return _byte_currents(input, self.weight, self.bias, False)
        if bias_left_out(self) is not None:
            return _dense(input, self.weight, None, False)
        if not _channels_last_on_cpu(input, self.weight):
            return super().forward(input)
        return _Convolution.apply(input, self.weight, self.bias, False, self.spiking_input)


class Upsampling(nn.ConvTranspose2d):
    """A transposed convolution that doubles height and width; see :class:`Downsampling`."""

    def __init__(
        self, inputs: int, outputs: int, spiking_input: bool = False, normalised: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)
        self.spiking_input, self.normalised = spiking_input, normalised

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return currents ``(N, C', 2 * H, 2 * W)`` for inputs ``(N, C, H, W)``."""
        if input.dtype == torch.uint8:
            return _byte_currents(input, self.weight, self.bias, True)
        if bias_left_out(self) is not None:
            return _dense(input, self.weight, None, True)
        if output_size is not None or not _channels_last_on_cpu(input, self.weight):
            return super().forward(input, output_size)
        return _Convolution.apply(input, self.weight, self.bias, True, self.spiking_input)


class PlainUpsampling(nn.ConvTranspose2d):
    """A transposed convolution 4x4 that doubles height and width; see :class:`Upsampling`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return currents ``(N, C', 2 * H, 2 * W)`` for inputs ``(N, C, H, W)``."""
        if self.out_channels % LANES:
            return self._by_pixel(input)
        if input.dtype == torch.uint8:
            return _byte_currents(input, self.weight, self.bias, True)
        if not isinstance(input, ByteSpikes) or not _channels_last_on_cpu(input, self.weight):
            return super().forward(input, output_size)
        return _Convolution.apply(input, self.weight, self.bias, True, True)

    def _by_pixel(self, input: Tensor) -> Tensor:
        """Return the currents as sums over pixels, which is fastest for few output channels."""
        assert self.bias is not None
        in_bytes = isinstance(input, ByteSpikes) or input.dtype == torch.uint8
        if in_bytes and not torch.is_autocast_enabled("cpu"):
            return windows.upsample(input, self.weight, self.bias)
        height, width = input.shape[2:]
        pixels = input.to(self.weight.dtype).movedim(1, -1).flatten(1, 2)
        by_pixel = pixels @ self.weight.flatten(1)
        currents = F.fold(by_pixel.mT, (2 * height, 2 * width), 4, padding=1, stride=2)
        return currents + self.bias[:, None, None]


class PooledConvolution(nn.Conv2d):
    """A convolution without padding, of spikes that are averaged over squares."""

    def forward(self, input: Tensor) -> Tensor:
        """Return currents ``(N, C', H', W')`` for inputs ``(N, C, H, W)``."""
        rounded = torch.is_autocast_enabled("cpu")
        if isinstance(input, PooledSpikes) and not rounded and len(self.weight) % LANES == 0:
            return _PooledConvolution.apply(input, self.weight, self.bias)
        return super().forward(input)


def bias_left_out(synapse: nn.Module) -> Tensor | None:
    """Return the bias ``(C,)`` that the currents of these synapses lack; None if they lack none.

    On CUDA, adding the bias and summing its gradient takes a tenth of a training step, and tdBN
    subtracts it with the mean.
    """
    if isinstance(synapse, Downsampling | Upsampling) and synapse.normalised:
        return synapse.bias if synapse.weight.is_cuda else None
    return None


def _channels_last_on_cpu(input: Tensor, weight: Tensor) -> bool:
    # Weights of one channel are contiguous in both ways; PyTorch's own gradients are fast for them.
    last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return last and input.device.type == "cpu"


def _byte_currents(spikes: Tensor, weight: Tensor, bias: Any, transposed: bool) -> Tensor:
    """Return the currents of uint8 spikes, lazy if they are looked up in tables."""
    rounded = torch.is_autocast_enabled("cpu")
    if not _worth_a_table(spikes):
        dtype = torch.bfloat16 if rounded else weight.dtype
        return _dense(spikes.to(dtype), weight.to(dtype), bias.to(dtype), transposed)
    return lookup.convolve(spikes, weight, bias, transposed, rounded)


def _worth_a_table(images: Tensor) -> bool:
    """Return True for uint8 spikes with enough pixels for a table to pay."""
    pixels = images.numel() // images.shape[1]
    return images.dtype == torch.uint8 and pixels >= PIXELS_WORTH_A_TABLE


def _dense(input: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    added = [1, 1] if transposed and weight.shape[-1] == 3 else _NONE
    return torch.convolution(
        input, weight, bias, _STRIDE, _PADDING, _DILATION, transposed, added, 1
    )


class _Convolution(torch.autograd.Function):
    """Input, weight and bias gradients one by one, each in its fastest form."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, transposed: bool, spiking_input: bool
    ) -> Tensor:
        input = bytes_of(input) if spiking_input else input
        input = input.contiguous(memory_format=torch.channels_last)
        ctx.transposed = transposed
        ctx.save_for_backward(input, weight)
        if not spiking_input:
            return _dense(input, weight, bias, transposed)
        if weight.dtype == torch.bfloat16:
            return _dense(input.to(weight.dtype), weight, bias, transposed)
        return _byte_currents(input, weight, bias, transposed)

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        input, weight = ctx.saved_tensors
        grad_output = grad_output.contiguous(memory_format=torch.channels_last)
        grad_input = None
        if ctx.needs_input_grad[0]:
            grad_input = _input_gradient(grad_output, weight, ctx.transposed)
        if _worth_a_table(input) and weight.dtype != torch.bfloat16:
            grad_weight, grad_bias = weight_gradients.convolution_gradients(
                input, grad_output, ctx.transposed, weight.shape[-1]
            )
        else:
            # The weight gradient of a transposed convolution is its convolution's, roles swapped.
            input = input.to(weight.dtype)
            first, second = (input, grad_output) if ctx.transposed else (grad_output, input)
            grad_weight = _weight_gradient(first, second, weight)
            grad_bias = grad_output.sum((0, 2, 3))
        return grad_input, grad_weight, grad_bias, None, None


def _input_gradient(grad_output: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    if weight.shape[-1] == 3 and input_gradients.are_faster(grad_output, weight, transposed):
        return input_gradients.convolution_gradient(grad_output, weight, transposed)
    return _dense(grad_output, weight, None, not transposed)


def _weight_gradient(grad_output: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(
        grad_output, input, weight, None, _STRIDE, _PADDING, _DILATION, False, _NONE, 1, mask
    )[1]


class _Connection(torch.autograd.Function):
    """A linear layer of spikes in bytes."""

    @staticmethod
    def forward(ctx: Any, input: ByteSpikes, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(input.uint8, weight)
        return lookup.connect(input.uint8, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        spikes, weight = ctx.saved_tensors
        grad_input = grad_output @ weight if ctx.needs_input_grad[0] else None
        if len(spikes) < ROWS_WORTH_LOOKING_BACK:
            return grad_input, grad_output.T @ spikes.to(grad_output.dtype), grad_output.sum(0)
        return grad_input, *weight_gradients.linear_gradients(spikes, grad_output)


class _PeriodicConnection(torch.autograd.Function):
    """A linear layer of neurons that fire with a period."""

    @staticmethod
    def forward(ctx: Any, input: PeriodicSpikes, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.spikes = PeriodicSpikes(input.periods, input.time_steps, input.dtype, folded=True)
        ctx.save_for_backward(weight)
        return periodic.connect(ctx.spikes, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        grad_weight = grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_weight = periodic.connection_gradient(ctx.spikes, grad_output)
            grad_bias = grad_output.sum(0)
        return grad_output @ weight if ctx.needs_input_grad[0] else None, grad_weight, grad_bias


class _PooledConvolution(torch.autograd.Function):
    """A convolution of pooled spikes of neurons that fire with a period."""

    @staticmethod
    def forward(ctx: Any, input: PooledSpikes, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.pooled = PooledSpikes(input.spikes, folded=True)
        ctx.save_for_backward(weight)
        return periodic.convolve(ctx.pooled, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        grad_output = grad_output.contiguous(memory_format=torch.channels_last)
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = torch.conv_transpose2d(grad_output, weight)
        if ctx.needs_input_grad[1]:
            grad_weight = periodic.convolution_gradient(ctx.pooled, grad_output, weight)
            grad_bias = grad_output.sum((0, 2, 3))
        return grad_input, grad_weight, grad_bias
