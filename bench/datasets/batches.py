"""Batches of float images in [-1, 1], made from uint8 images in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

# Bytes that became float32 in [-1, 1] differ from integers by less.
BYTE_ROUNDING = 1e-3


def to_unit_range(images: Tensor) -> Tensor:
    """Convert uint8 images ``(...)`` to float32 in [-1, 1], of the same shape.

    >>> to_unit_range(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return images.float() / 255 * 2 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Round images ``(...)`` in [-1, 1] to uint8, of the same shape; values outside are clipped.

    >>> to_pixels(torch.tensor([-1.0, 1.5]))
    tensor([  0, 255], dtype=torch.uint8)
    """
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


def is_of_bytes(images: Tensor) -> bool:
    """Return True if all values of images ``(...)`` in [-1, 1] stand for integers in 0..255.

    >>> is_of_bytes(to_unit_range(torch.arange(256, dtype=torch.uint8)))
    True
    >>> is_of_bytes(torch.tensor([-1.0, 0.3]))
    False
    """
    pixels = (images + 1) * 127.5
    return bool(((pixels - pixels.round()).abs() < BYTE_ROUNDING).all())


def batch_count(images: int, batch_size: int, drop_last: bool = False) -> int:
    """Return the number of batches.

    Args:
        images: number of images.
        batch_size: number of images per batch.
        drop_last: True to leave out an incomplete last batch.

    >>> batch_count(5, 2), batch_count(5, 2, drop_last=True)
    (3, 2)
    """
    return images // batch_size if drop_last else -(-images // batch_size)


def training_batches(
    images: Tensor,
    labels: Tensor | None,
    batch_size: int,
    generator: torch.Generator,
    *,
    flip: bool,
    drop_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield images in random order, each at most once, as batches ``(B, C, H, W)`` in [-1, 1].

    Each batch comes with its labels ``(B,)``, or with None.

    Args:
        images: uint8 images ``(N, C, H, W)``, on the device for the batches.
        labels: integers ``(N,)``, on the same device; None if nothing needs them.
        batch_size: number of images B per batch; the last batch can be smaller.
        generator: generator on the CPU, which determines the order and the flips.
        flip: True to flip each image horizontally with probability 0.5.
        drop_last: True to leave out an incomplete last batch.
    """
    order = torch.randperm(len(images), generator=generator).to(images.device)
    count = batch_count(len(images), batch_size, drop_last)
    for indices in order.split(batch_size)[:count]:
        batch = images[indices]
        shown = to_unit_range(_flipped(batch, generator) if flip else batch)
        yield shown, None if labels is None else labels[indices]


def evaluation_batches(
    images: Tensor, batch_size: int, flip_generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Yield each image once, in order, as batches ``(B, C, H, W)`` in [-1, 1].

    Args:
        images: uint8 images ``(N, C, H, W)``, on the device for the batches.
        batch_size: number of images B per batch; the last batch can be smaller.
        flip_generator: generator on the CPU to flip each image horizontally with probability 0.5;
            None for no flips.
    """
    for batch in images.split(batch_size):
        yield to_unit_range(batch if flip_generator is None else _flipped(batch, flip_generator))


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    flips = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flips.to(images.device)[:, None, None, None], images.flip(-1), images)
