"""The run of a dataset's cell: score real images and noise, the scale of Fréchet distances."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.datasets.batches import to_unit_range
from bench.datasets.preprocessing import draw
from bench.evaluation.context import CellContext
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.given_outputs import GivenOutputs
from bench.execution.cell import CellRun
from bench.metrics.metric import Metric
from bench.plan.cells import DatasetCell
from bench.store.run_directory import Row
from bench.store.schema import PIXEL_NOISE, REAL_IMAGES

SEED = 0
IMAGES_AT_ONCE = 1000


def real_images(context: CellContext) -> Tensor:
    """Return ``generated_images`` images of the split that is not the reference, or all of it.

    Args:
        context: images and settings of the cell.

    Returns:
        uint8 images ``(N, C, H, W)``, drawn from a fixed seed.
    """
    images = context.images_of(context.protocol.other_split)
    drawn = torch.from_numpy(draw(len(images), context.protocol.generated_images))
    return images[drawn.to(images.device)]


def pixel_noise(context: CellContext) -> Tensor:
    """Return ``generated_images`` images of independent Gaussian values, drawn from a fixed seed.

    Each value has the mean and the standard deviation of the training images at its pixel and
    channel, and is clipped to [-1, 1].

    Args:
        context: images and settings of the cell.

    Returns:
        Float32 images ``(N, C, H, W)`` in [-1, 1].
    """
    mean, deviation = pixel_moments(context.train_images)
    generator = torch.Generator().manual_seed(SEED)
    shape = (context.protocol.generated_images, *mean.shape)
    noise = torch.randn(shape, generator=generator).to(mean.device)
    return noise.mul_(deviation).add_(mean).clamp_(-1, 1)


def pixel_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of images at each pixel and channel.

    Args:
        images: uint8 images ``(N, C, H, W)``.

    Returns:
        Both float32 ``(C, H, W)``, of values in [-1, 1].

    >>> mean, deviation = pixel_moments(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    >>> mean.item(), deviation.item()
    (0.0, 1.0)
    """
    shape = images.shape[1:]
    total, squares = torch.zeros((2, *shape), dtype=torch.float64, device=images.device)
    for part in images.split(IMAGES_AT_ONCE):
        values = to_unit_range(part).double()
        total += values.sum(0)
        squares += values.square().sum(0)
    mean = total / len(images)
    variance = (squares / len(images) - mean.square()).clamp(min=0)
    return mean.float(), variance.sqrt().float()


SOURCES: Mapping[str, Callable[[CellContext], Tensor]] = {
    REAL_IMAGES: real_images,
    PIXEL_NOISE: pixel_noise,
}


@dataclass(frozen=True)
class DatasetRun(CellRun):
    """Scores images that no model generated with the metrics that have a scale."""

    cell: DatasetCell

    def _observe(self, missing: list[type[Metric]], context: CellContext) -> list[Row]:
        self._write_facts()
        images = SOURCES[self.cell.model](context)
        protocol = context.protocol.model_copy(update={"generated_images": len(images)})
        outputs = GivenOutputs(protocol, images, None)
        evaluator = Evaluator(replace(context, protocol=protocol))
        observed = evaluator.evaluate(outputs, missing, training=None)
        return self.rows.untrained(missing, observed)
