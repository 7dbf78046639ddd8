"""The scale of Fréchet distances: the distances of real images and of noise, and their ratio."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.store.schema import DATASET, OK, PIXEL_NOISE, REAL_IMAGES

LEAST_RATIO = 10
"""Ratio of the distances of noise and of real images below which a distance is unusable.

A network that separates noise from images gives 30 or more on the built-in datasets. An autoencoder
trained for one epoch on 64 digits gives 1 to 3.3.
"""
SAME_SCALE = ["dataset", "metric", "protocol", "protocol_hash", "extractor", "extractor_sha256"]


@dataclass(frozen=True)
class DistanceScale:
    """The scale of one Fréchet distance on one dataset.

    Attributes:
        metric: name of the metric.
        dataset: name of the dataset.
        real: row of real images, the floor.
        noise: row of noise, the ceiling.
    """

    metric: str
    dataset: str
    real: "pd.Series[Any]"
    noise: "pd.Series[Any]"

    @property
    def ratio(self) -> float:
        """The distance of noise divided by the distance of real images; infinite if that is 0."""
        floor, ceiling = float(self.real["value"]), float(self.noise["value"])
        return ceiling / floor if floor > 0 else float("inf")

    @property
    def usable(self) -> bool:
        """True if noise is far enough from real images."""
        return self.ratio >= LEAST_RATIO and self.noise["value"] > 0


def distance_scales(rows: pd.DataFrame) -> Iterator[DistanceScale]:
    """Yield the scale of each distance that has both ends.

    Args:
        rows: rows of a run, as :func:`bench.load_results` returns them.
    """
    known = rows[(rows["kind"] == DATASET) & (rows["status"] == OK)]
    for _, group in known.groupby(SAME_SCALE, dropna=False, sort=False):
        ends = {name: part.iloc[-1] for name, part in group.groupby("model")}
        if REAL_IMAGES in ends and PIXEL_NOISE in ends:
            real = ends[REAL_IMAGES]
            yield DistanceScale(real["metric"], real["dataset"], real, ends[PIXEL_NOISE])
