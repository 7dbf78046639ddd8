"""Samples and the training images nearest to them, for a plot."""

from collections.abc import Collection, Iterable

import numpy as np
import torch
from torch import Tensor

from bench.datasets.batches import to_pixels
from bench.metrics.extractors.extractor import Extractors
from bench.metrics.memorisation import MemorisationMetric, nearest
from bench.metrics.metric import Metric
from bench.store.schema import NEAREST_FILE, TRAIN
from bench.system.checksums import SummedFolder
from bench.system.devices import tf32

MOST_SAMPLES = 12


def memorisation_extractor(metrics: Iterable[type[Metric]], valued: Collection[str]) -> str | None:
    """Return the extractor of the first metric of memorisation that has a value, or None.

    Args:
        metrics: metrics of a cell, in the order of its rows.
        valued: names of the metrics that have a value.
    """
    known = (m for m in metrics if issubclass(m, MemorisationMetric) and m.name in valued)
    return next((metric.extractors[0] for metric in known), None)


def save_nearest(samples: Tensor, name: str, extractors: Extractors, folder: SummedFolder) -> None:
    """Write the first samples and the training image nearest to each to ``nearest.npz``.

    The file has ``samples`` and ``nearest``, uint8 ``(N, C, H, W)`` with N at most 12,
    ``distances`` between their features, float64 ``(N,)``, and the name ``extractor``.

    Args:
        samples: samples ``(N, C, H, W)`` in [-1, 1].
        name: registered name of the extractor.
        extractors: extractors of the cell.
        folder: folder of the cell.
    """
    shown = samples[:MOST_SAMPLES]
    with torch.no_grad(), tf32(False):
        features = extractors.get(name)(shown).pool
    found = nearest(features.numpy(), extractors.of_split(name, TRAIN).pool.numpy())
    trained = extractors.context.train_images
    indices = torch.from_numpy(found.indices).to(trained.device)
    with folder.write(NEAREST_FILE) as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            samples=to_pixels(shown).cpu().numpy(),
            nearest=trained[indices].cpu().numpy(),
            distances=found.distances,
            extractor=np.array(name),
        )
