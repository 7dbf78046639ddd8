"""Batches of images in [-1, 1] from uint8 images in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1]."""
    return images.float() / 255 * 2 - 1


def batch_count(images: int, batch_size: int) -> int:
    """Number of batches, the last incomplete one included."""
    return -(-images // batch_size)


def training_batches(
    images: Tensor, batch_size: int, generator: torch.Generator, flip: bool
) -> Iterator[Tensor]:
    """All images once in a random order, as batches ``(N, C, H, W)`` in [-1, 1].

    Args:
        images: uint8 ``(N, C, H, W)``, on the device where the batches shall be.
        batch_size: images a batch; the last may have fewer.
        generator: on the CPU; decides the order and the flips.
        flip: whether half of the images, at random, are flipped horizontally.
    """
    order = torch.randperm(len(images), generator=generator).to(images.device)
    for indices in order.split(batch_size):
        batch = images[indices]
        yield to_unit_range(_flipped(batch, generator) if flip else batch)


def evaluation_batches(
    images: Tensor, batch_size: int, flip_generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """All images once in order, as batches in [-1, 1]; with a generator, flipped at random."""
    for batch in images.split(batch_size):
        yield to_unit_range(batch if flip_generator is None else _flipped(batch, flip_generator))


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    flips = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flips.to(images.device)[:, None, None, None], images.flip(-1), images)
