"""Images in [-1, 1] as the pixels that networks for photographs take."""

import torch
from torch import Tensor


def rgb_pixels(images: Tensor) -> Tensor:
    """Images ``(N, C, H, W)`` in [-1, 1] as float32 ``(N, 3, H, W)`` in 0..255, grey repeated.

    Raises:
        ValueError: neither one nor three channels, or values that are not finite.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"expected images (N, 1 or 3, H, W), got {tuple(images.shape)}")
    if not torch.isfinite(images).all():
        raise ValueError("the images hold values that are not finite")
    pixels = (images.float() + 1) / 2 * 255
    return pixels.expand(-1, 3, -1, -1)


def quantised(pixels: Tensor) -> Tensor:
    """Pixels rounded to uint8, what lies outside 0..255 clipped."""
    return pixels.round().clamp(0, 255).to(torch.uint8)
