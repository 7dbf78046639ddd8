"""Transposed convolutions 4x4 of spikes to few channels on the CPU, with gradients.

Each pixel's window of the output is the current of a linear layer, looked up in tables; the
windows, which overlap, are then added. A look-up of the output's pixels would sum one vector of
channels for each of them, nearly all of it padding.
"""

from typing import Any

import numba
import torch
from torch import Tensor

from baselines.fused.cpu import lookup, weight_gradients
from baselines.fused.cpu.aligned_memory import empty_aligned
from baselines.fused.cpu.kernel import PIECES, Array, Kernel, called, part
from baselines.fused.cpu.lazy_tensors import bytes_of, materialised

SIDE = 4


def upsample(spikes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return currents ``(R, O, 2 * H, 2 * W)`` of a transposed convolution, with gradients.

    Args:
        spikes: spikes ``(R, C, H, W)``, :class:`ByteSpikes` or uint8.
        weight: weights ``(C, O, 4, 4)``; the stride is 2, the padding 1.
        bias: bias ``(O,)``.
    """
    return _Upsampled.apply(spikes, weight, bias)


class _Upsampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pixels = materialised(bytes_of(spikes)).movedim(1, -1).contiguous()
        ctx.save_for_backward(pixels, weight)
        images, height, width, _ = pixels.shape
        windows = lookup.connect(
            pixels.flatten(0, 2), weight.flatten(1).mT, bias.new_zeros(weight[0].numel())
        )
        currents = bias.new_empty((images, len(bias), 2 * height, 2 * width))
        by_image = windows.view(images, height, width, -1)
        _add_windows(by_image.numpy(), bias.detach().numpy(), currents.numpy())
        return currents

    @staticmethod
    def backward(ctx: Any, grad_currents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels, weight = ctx.saved_tensors
        grad_windows = grad_currents.new_empty((*pixels.shape[:3], weight[0].numel()))
        _take_windows(materialised(grad_currents).contiguous().numpy(), grad_windows.numpy())
        by_pixel = grad_windows.flatten(0, 2)
        of_windows, _ = weight_gradients.linear_gradients(pixels.flatten(0, 2), by_pixel)
        grad_weight = of_windows.mT.unflatten(1, weight.shape[1:])
        grad_pixels = empty_aligned(pixels.shape, weight.dtype)
        torch.mm(by_pixel, weight.flatten(1).mT, out=grad_pixels.flatten(0, 2))
        return grad_pixels.movedim(-1, 1), grad_weight, grad_currents.sum((0, 2, 3))


@Kernel
def _add_windows(windows: Array, bias: Array, images: Array) -> None:
    """Add the windows of all pixels where they belong in the output.

    Args:
        windows: windows ``(R, H, W, O * 16)``.
        bias: bias ``(O,)``.
        images: output ``(R, O, 2 * H, 2 * W)``, written.
    """
    for piece in numba.prange(PIECES):
        for index in part(piece, len(images)):
            _add_windows_of_image(windows[index], bias, images[index])


@Kernel
def _take_windows(images: Array, windows: Array) -> None:
    """Copy the windows of all pixels from images; beyond the border they are 0.

    Args:
        images: images ``(R, O, 2 * H, 2 * W)``.
        windows: windows ``(R, H, W, O * 16)``, written.
    """
    for piece in numba.prange(PIECES):
        for index in part(piece, len(images)):
            _take_windows_of_image(images[index], windows[index])


@called
def _add_windows_of_image(windows: Array, bias: Array, image: Array) -> None:
    """Add windows ``(H, W, O * 16)`` and bias ``(O,)`` into an image ``(O, 2 * H, 2 * W)``.

    Args:
        windows: windows of the image's pixels.
        bias: bias.
        image: image, written.
    """
    height, width, _ = windows.shape
    for channel in range(len(bias)):
        image[channel] = bias[channel]
        for row in range(height):
            for line in range(max(0, 1 - 2 * row), min(SIDE, 2 * (height - row) + 1)):
                target = image[channel, 2 * row + line - 1]
                first = (channel * SIDE + line) * SIDE
                for column in range(width):
                    for i in range(max(0, 1 - 2 * column), min(SIDE, 2 * (width - column) + 1)):
                        target[2 * column + i - 1] += windows[row, column, first + i]


@called
def _take_windows_of_image(image: Array, windows: Array) -> None:
    """Copy windows ``(H, W, O * 16)`` from an image ``(O, 2 * H, 2 * W)``.

    Args:
        image: image.
        windows: windows of the image's pixels, written.
    """
    height, width, _ = windows.shape
    windows[:] = 0
    for channel in range(len(image)):
        for row in range(height):
            for line in range(max(0, 1 - 2 * row), min(SIDE, 2 * (height - row) + 1)):
                source = image[channel, 2 * row + line - 1]
                first = (channel * SIDE + line) * SIDE
                for column in range(width):
                    for i in range(max(0, 1 - 2 * column), min(SIDE, 2 * (width - column) + 1)):
                        windows[row, column, first + i] = source[2 * column + i - 1]
