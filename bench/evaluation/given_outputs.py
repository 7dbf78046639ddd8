"""Outputs that exist already, in the place of a model that would compute them."""

import torch
from torch import Tensor

from bench.datasets.batches import to_unit_range
from bench.model import GenerativeModel
from bench.protocol import Protocol

NO_MODEL = "the images were given, without a model"


class GivenOutputs(GenerativeModel):
    """Gives out images in their order, for one pass over them.

    Args:
        protocol: protocol of the cell.
        generated: generated images ``(N, C, H, W)``, uint8, or float32 in [-1, 1].
        reconstructions: reconstructions of all test images, in their order, ``(M, C, H, W)`` of
            the same types; None if there are none.
    """

    version = "1"
    capabilities = frozenset({"sample", "reconstruct"})

    def __init__(
        self, protocol: Protocol, generated: Tensor, reconstructions: Tensor | None
    ) -> None:
        channels, height, width = generated.shape[1:]
        super().__init__((channels, height, width), protocol, None)
        self._generated, self._reconstructions = generated, reconstructions
        self._sampled = self._reconstructed = 0

    @property
    def reconstructs(self) -> bool:
        """True if there are reconstructions."""
        return self._reconstructions is not None

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return self._generated.device

    def training_step(self, images: Tensor, step: object) -> dict[str, Tensor | float]:
        """Raise RuntimeError: images that exist are not trained."""
        raise RuntimeError(NO_MODEL)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return the next ``n`` generated images ``(n, C, H, W)``."""
        start = self._sampled
        self._sampled += n
        return in_unit_range(self._generated[start : start + n])

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the next reconstructions, as many as ``images``, ``(N, C, H, W)``."""
        assert self._reconstructions is not None
        start = self._reconstructed
        self._reconstructed += len(images)
        return in_unit_range(self._reconstructions[start : start + len(images)])


def in_unit_range(images: Tensor) -> Tensor:
    """Return images ``(N, C, H, W)``, uint8 or float32 in [-1, 1], as float32 in [-1, 1]."""
    return to_unit_range(images) if images.dtype == torch.uint8 else images
