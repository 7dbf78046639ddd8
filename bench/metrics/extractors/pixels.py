"""Conversion of images in [-1, 1] to the RGB pixels that ImageNet networks expect."""

import torch
from torch import Tensor


def rgb_pixels(images: Tensor) -> Tensor:
    """Convert images to RGB pixels; one channel is repeated three times.

    Args:
        images: images ``(N, C, H, W)`` in [-1, 1], with 1 or 3 channels.

    Returns:
        Float32 ``(N, 3, H, W)`` in 0..255, not rounded.

    Raises:
        ValueError: the images have neither 1 nor 3 channels, or a value is not finite.

    >>> rgb_pixels(torch.tensor([[[[-1.0, 1.0]]]]))[0, :, 0]
    tensor([[  0., 255.],
            [  0., 255.],
            [  0., 255.]])
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"expected images (N, 1 or 3, H, W), got {tuple(images.shape)}")
    if not torch.isfinite(images).all():
        raise ValueError("the images contain values that are not finite")
    pixels = (images.float() + 1) / 2 * 255
    return pixels.expand(-1, 3, -1, -1)


def quantised(pixels: Tensor) -> Tensor:
    """Round pixels ``(N, C, H, W)`` to uint8 and clip them to 0..255; any shape works.

    >>> quantised(torch.tensor([-3.0, 1.6, 300.0]))
    tensor([  0,   2, 255], dtype=torch.uint8)
    """
    return pixels.round().clamp(0, 255).to(torch.uint8)
