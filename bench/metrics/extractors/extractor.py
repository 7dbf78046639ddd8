"""The contract of an extractor, and the one place where a cell's features come from."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench import registry
from bench.datasets.batches import evaluation_batches
from bench.errors import SkippedError
from bench.metrics.extractors.feature_cache import cached_features
from bench.metrics.extractors.weights import WeightFile
from bench.protocol import Protocol
from bench.system.paths import Resources
from bench.system.progress import WorkReporter

REFERENCE_BATCH = 250


@dataclass(frozen=True)
class Features:
    """What an extractor finds in N images, on the CPU.

    Attributes:
        pool: ``(N, D)`` float32.
        logits: ``(N, K)`` float32 of the K classes; None from an extractor without classes.
    """

    pool: Tensor
    logits: Tensor | None = None


@dataclass(frozen=True)
class Setting:
    """What an extractor may need to know of the cell that it works for.

    Attributes:
        dataset: name of the dataset.
        fingerprint: of the dataset's content.
        protocol: resolved for the model and dataset.
        seed: of the cell.
        device: where the extractor runs.
        train_images: uint8 ``(N, C, H, W)``, preprocessed as the protocol says.
        test_images: uint8, alike.
        resources: where weights are, and what is computed once is kept.
        reporter: is told of the progress.
    """

    dataset: str
    fingerprint: str
    protocol: Protocol
    seed: int
    device: torch.device
    train_images: Tensor
    test_images: Tensor
    resources: Resources
    reporter: WorkReporter

    @property
    def reference_images(self) -> Tensor:
        """The images of the protocol's reference split."""
        return getattr(self, f"{self.protocol.reference_split}_images")


class Extractor(ABC):
    """Turns images into features.

    Attributes:
        description: what it is, resize mode and quantisation included; the row's ``extractor``.
        sha256: of its weights; the row's ``extractor_sha256``.
        weight_files: the files of weights that it loads; empty if a package holds its weights.
        reference_batch: images a batch of the reference; told in the description if it matters.
        generated_batch: images a batch of generated ones, where that matters; None if it does not.
    """

    description: str
    sha256: str
    weight_files: ClassVar[tuple[WeightFile, ...]] = ()
    reference_batch: ClassVar[int] = REFERENCE_BATCH
    generated_batch: ClassVar[int | None] = None

    @classmethod
    def unavailable(cls, resources: Resources) -> str | None:
        """Why the extractor cannot be had with these resources, or None if it seems that it can.

        Asked before anything is loaded, for what was skipped in an earlier run.
        """
        return None

    @abstractmethod
    def __init__(self, setting: Setting) -> None:
        """Load the weights.

        Raises:
            SkippedError: the weights or a package are not here; says the ways out.
        """

    @abstractmethod
    def __call__(self, images: Tensor) -> Features:
        """Features of images ``(N, C, H, W)`` in [-1, 1], one or three channels, on any device.

        The features of an image do not depend on the other images of the batch, unless the
        extractor's description says so.
        """


class TrainedExtractor(Extractor):
    """An extractor that may be trained on the dataset, in a cell of its own.

    Attributes:
        cell_name: what its cell is called, where others name the model.
        version: raised whenever a change of the code moves its weights.
    """

    cell_name: ClassVar[str]
    version: ClassVar[str]

    @classmethod
    @abstractmethod
    def training_choices(cls, protocol: Protocol) -> tuple[Hashable, ...] | None:
        """What of a protocol the weights depend on; None if it cannot be had under it."""

    @abstractmethod
    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstructions of images ``(N, C, H, W)`` in [-1, 1], of the same shape."""


class Extractors:
    """The extractors of one cell, loaded when first asked for."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._loaded: dict[str, Extractor | SkippedError] = {}
        self._last: dict[str, tuple[Tensor, Features]] = {}

    def get(self, name: str) -> Extractor:
        """A registered extractor.

        Raises:
            SkippedError: it cannot be had here.
        """
        if name not in self._loaded:
            try:
                self._loaded[name] = registry.extractors.load(name)(self.setting)
            except SkippedError as error:
                self._loaded[name] = error
        loaded = self._loaded[name]
        if isinstance(loaded, SkippedError):
            raise loaded
        return loaded

    def features(self, name: str, images: Tensor) -> Features:
        """Features of a batch of images in [-1, 1]; asked again for the same, it remembers."""
        last = self._last.get(name)
        if last is None or last[0] is not images:
            self._last[name] = last = (images, self.get(name)(images))
        return last[1]

    def reference(self, name: str) -> Features:
        """Features of all reference images, in order; kept on disk by content."""
        extractor, setting = self.get(name), self.setting
        protocol = setting.protocol
        content: Mapping[str, object] = {
            "dataset_fingerprint": setting.fingerprint,
            "split": protocol.reference_split,
            "images": len(setting.reference_images),
            "image_size": protocol.image_size,
            "center_crop": protocol.center_crop,
            "interpolation": protocol.interpolation,
            "extractor": extractor.description,
            "extractor_sha256": extractor.sha256,
        }
        arrays = cached_features(
            setting.resources.cache / "features", content, lambda: self._extract(name)
        )
        logits = torch.from_numpy(arrays["logits"]) if "logits" in arrays else None
        return Features(torch.from_numpy(arrays["pool"]), logits)

    def _extract(self, name: str) -> Mapping[str, Tensor]:
        extractor, images = self.get(name), self.setting.reference_images
        pools, logits = [], []
        with torch.no_grad():
            for batch in evaluation_batches(images, extractor.reference_batch):
                found = extractor(batch)
                pools.append(found.pool)
                if found.logits is not None:
                    logits.append(found.logits)
                done = sum(map(len, pools))
                self.setting.reporter.evaluated(f"reference of {name}", done, len(images))
        return {"pool": torch.cat(pools), **({"logits": torch.cat(logits)} if logits else {})}
