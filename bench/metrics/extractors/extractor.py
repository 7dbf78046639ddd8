"""The contract of a feature extractor, and the extractors of one cell."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench import registry
from bench.datasets.batches import evaluation_batches, is_of_bytes
from bench.errors import BenchError, ContractError, SkippedError, one_line
from bench.metrics.extractors.feature_buffer import FeatureBuffer
from bench.metrics.extractors.feature_cache import cached_features
from bench.metrics.extractors.reference_statistics import (
    ReferenceStatistics,
    described,
    read_statistics,
)
from bench.metrics.extractors.weights import WeightFile
from bench.protocol import Protocol
from bench.store.trained_weights import TrainedWeights, read_weights, weights_name
from bench.system.files import file_sha256
from bench.system.paths import Resources, StatisticsFile, TrainedFile
from bench.system.progress import WorkReporter

REFERENCE_BATCH = 250


@dataclass(frozen=True)
class Features:
    """Features of N images, on the CPU.

    Attributes:
        pool: pool features ``(N, D)``, float32.
        logits: logits ``(N, K)`` of K classes, float32; None from an extractor without classes.
    """

    pool: Tensor
    logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ExtractorContext:
    """Data and settings of the cell that an extractor is used in.

    Attributes:
        dataset: name of the dataset.
        fingerprint: hash of the dataset's content.
        protocol: protocol, resolved for the model and dataset.
        device: device that the extractor runs on.
        train_images: training images, uint8 ``(N, C, H, W)``, preprocessed by the protocol.
        test_images: test images, uint8 ``(M, C, H, W)``, preprocessed by the protocol.
        validation_images: validation images, uint8 ``(V, C, H, W)``, preprocessed by the protocol;
            None if the dataset has none or no metric compares with them.
        resources: data root, weight files and cache folder.
        reporter: receives the progress.
    """

    dataset: str
    fingerprint: str
    protocol: Protocol
    device: torch.device
    train_images: Tensor
    test_images: Tensor
    validation_images: Tensor | None = None
    resources: Resources
    reporter: WorkReporter

    def images_of(self, split: str) -> Tensor:
        """Return the images of a split, uint8 ``(N, C, H, W)``.

        Raises:
            SkippedError: the dataset has no such split.
        """
        images: Tensor | None = getattr(self, f"{split}_images")
        if images is None:
            raise SkippedError(f"the dataset {self.dataset} has no {split} split")
        return images


class Extractor(ABC):
    """A network that turns images into features. Register it under ``bench.extractors``.

    Attributes:
        description: network, resize mode and quantisation, in words; the row's ``extractor``.
        sha256: SHA-256 of the weights in hex; the row's ``extractor_sha256``.
        weight_files: files with the weights; empty if the weights come in a package.
        reference_batch: number of reference images per batch; if the features depend on it, the
            description must say it.
        reference_split: split of the reference images; None for the protocol's ``reference_split``.
        generated_batch: number of generated images per batch; None if the features do not depend on
            the batch.
        same_of_bytes: registered name of an extractor with the same features of images of 8 bits,
            which are then computed once for both; None if there is none.
    """

    description: str
    sha256: str
    weight_files: ClassVar[tuple[WeightFile, ...]] = ()
    reference_batch: ClassVar[int] = REFERENCE_BATCH
    reference_split: str | None = None
    generated_batch: int | None = None
    same_of_bytes: ClassVar[str | None] = None

    @classmethod
    def unavailable(cls, resources: Resources) -> str | None:
        """Return why the extractor is unavailable with these resources, or None.

        Called before anything is loaded, to decide whether metrics that were skipped in an earlier
        run can be computed now.
        """
        return None

    @abstractmethod
    def __init__(self, context: ExtractorContext) -> None:
        """Load the weights.

        Raises:
            SkippedError: weights or a package are missing; the message says how to provide them.
        """

    @abstractmethod
    def __call__(self, images: Tensor) -> Features:
        """Compute the features of images.

        The features of an image must not depend on the other images of the batch, unless the
        extractor's description says so.

        Args:
            images: images ``(N, C, H, W)`` in [-1, 1], with 1 or 3 channels, on any device.
        """


class TrainedExtractor(Extractor):
    """An extractor that can be trained on the dataset, in a cell of its own.

    Attributes:
        cell_name: name of its cell in the column ``model``.
        version: version of the training; raise it whenever a change of the code moves the weights.
        weights: the trained weights, which its cell keeps and a reference carries; None if they
            were not trained.
    """

    cell_name: ClassVar[str]
    version: ClassVar[str]
    weights: TrainedWeights | None = None

    @classmethod
    @abstractmethod
    def training_fields(cls, protocol: Protocol) -> tuple[str, ...] | None:
        """Return the names of the protocol's fields that the weights depend on.

        None if the extractor cannot be trained under the protocol.
        """

    @classmethod
    def training_content(
        cls, dataset: str, fingerprint: str, protocol: Protocol, train_images: int
    ) -> Mapping[str, Any] | None:
        """Return everything that the weights depend on, as JSON values.

        None if the extractor cannot be trained under the protocol, or never loads the weights of a
        reference.

        Args:
            dataset: name of the dataset.
            fingerprint: hash of the dataset's content.
            protocol: protocol, resolved for the model and dataset.
            train_images: number of training images.
        """
        return None

    @classmethod
    def reference_file(
        cls, resources: Resources, content: Mapping[str, Any] | None
    ) -> TrainedFile | None:
        """Return the reference's file of the weights that depend on ``content``, or None."""
        return resources.trained.get(weights_name(cls.cell_name, content)) if content else None

    @classmethod
    def reference_weights(
        cls, resources: Resources, content: Mapping[str, Any]
    ) -> TrainedWeights | None:
        """Return the reference's weights that depend on ``content``, or None.

        Raises:
            BenchError: the file is damaged.
        """
        file = cls.reference_file(resources, content)
        return read_weights(file.path) if file else None

    @classmethod
    def keep(cls, weights: TrainedWeights, resources: Resources) -> None:
        """Keep weights that were trained elsewhere where the extractor looks for its own.

        Called with the weights of a run directory, which another machine can have begun. The
        default keeps nothing.
        """

    @abstractmethod
    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstruct images ``(N, C, H, W)`` in [-1, 1]; the result has the same shape."""


class Extractors:
    """The extractors of one cell, each loaded on first use."""

    def __init__(self, context: ExtractorContext) -> None:
        self.context = context
        self._loaded: dict[str, Extractor | SkippedError] = {}
        self._last: dict[str, tuple[Tensor, Features]] = {}
        self._statistics: dict[str, ReferenceStatistics] = {}

    def get(self, name: str) -> Extractor:
        """Return the extractor registered under a name.

        Raises:
            SkippedError: the extractor is unavailable or cannot be imported; the message says why.
        """
        if name not in self._loaded:
            try:
                self._loaded[name] = _load(name)(self.context)
            except SkippedError as error:
                self._loaded[name] = error
        loaded = self._loaded[name]
        if isinstance(loaded, SkippedError):
            raise loaded
        return loaded

    def features(self, name: str, images: Tensor) -> Features:
        """Return the named extractor's features of images ``(N, C, H, W)`` in [-1, 1].

        The features of the last batch are kept, so that several metrics can ask for them.
        """
        same = self.get(name).same_of_bytes
        if same is not None and is_of_bytes(images):
            return self.features(same, images)
        last = self._last.get(name)
        if last is None or last[0] is not images:
            self._last[name] = last = (images, self.get(name)(images))
        return last[1]

    def reference_split(self, name: str) -> str:
        """Return the split of the named extractor's reference images."""
        return self.get(name).reference_split or self.context.protocol.reference_split

    def reference(self, name: str) -> Features:
        """Return the named extractor's features of all reference images, in order.

        Pool features ``(N, D)`` and logits ``(N, K)``, see :meth:`of_split`.
        """
        return self.of_split(name, self.reference_split(name))

    def of_split(self, name: str, split: str) -> Features:
        """Return the named extractor's features of all N images of a split, in order.

        Pool features ``(N, D)`` and, from a classifier, logits ``(N, K)``. They are cached on
        disk, under a hash of everything that they depend on.

        Args:
            name: registered name of the extractor.
            split: ``train``, ``test`` or ``validation``.

        Raises:
            SkippedError: the dataset has no such split.
        """
        same = self.get(name).same_of_bytes
        if same is not None:
            return self.of_split(same, split)
        extractor, context = self.get(name), self.context
        protocol, images = context.protocol, context.images_of(split)
        content: dict[str, object] = {
            "dataset_fingerprint": context.fingerprint,
            "split": split,
            "images": len(images),
            "image_size": protocol.image_size,
            "center_crop": protocol.center_crop,
            "interpolation": protocol.interpolation,
            "extractor": extractor.description,
            "extractor_sha256": extractor.sha256,
        }
        if images is context.validation_images:
            # The fingerprint does not cover them.
            content["images_sha256"] = hashlib.sha256(images.cpu().numpy().data).hexdigest()
        arrays = cached_features(
            context.resources.cache / "features", content, lambda: self._extract(name, split)
        )
        logits = torch.from_numpy(arrays["logits"]) if "logits" in arrays else None
        return Features(torch.from_numpy(arrays["pool"]), logits)

    def statistics(self, name: str) -> ReferenceStatistics | None:
        """Return the statistics to compare the named extractor's features with; None for images'.

        Raises:
            BenchError: the file changed since the run began, or the extractor has other weights.
        """
        file = self.context.resources.statistics.get(name)
        if file is not None and name not in self._statistics:
            self._statistics[name] = self._read_statistics(name, file)
        return self._statistics.get(name)

    def reference_description(self, name: str) -> str:
        """Return the named extractor's description, with what its features are compared with.

        That are reference statistics if there are any, and else the reference images.
        """
        description, statistics = self.get(name).description, self.statistics(name)
        if statistics is None:
            return description
        file = self.context.resources.statistics[name]
        return f"{description}; {described(file, statistics)}"

    def _read_statistics(self, name: str, file: StatisticsFile) -> ReferenceStatistics:
        statistics = read_statistics(file.path)
        if file_sha256(file.path) != file.sha256:
            raise BenchError(f"{file.path} changed since the run began.")
        made, used = statistics.provenance, self.get(name).sha256
        if made and made.extractor_sha256 != used:
            raise BenchError(
                f"{file.path} was made with other weights of {name} (SHA-256 "
                f"{made.extractor_sha256}) than are in use ({used})."
            )
        return statistics

    def _extract(self, name: str, split: str) -> Mapping[str, Tensor]:
        extractor, images = self.get(name), self.context.images_of(split)
        pool, logits = FeatureBuffer(), FeatureBuffer()
        with torch.no_grad():
            for batch in evaluation_batches(images, extractor.reference_batch):
                features = extractor(batch)
                pool.add(features.pool)
                if features.logits is not None:
                    logits.add(features.logits)
                stage = f"{split} features of {name}"
                self.context.reporter.evaluated(stage, pool.n, len(images))
        return {"pool": pool.rows(), **({"logits": logits.rows()} if logits.n else {})}


def why_unavailable(extractor: type[Extractor], resources: Resources) -> str | None:
    """Return why an extractor is unavailable, or None; a plug-in whose check fails is.

    Args:
        extractor: class of the extractor.
        resources: data root, weight files and cache folder.
    """
    try:
        return extractor.unavailable(resources)
    except Exception as error:
        return f"{extractor.__name__}.unavailable failed: {one_line(error)}"


def _load(name: str) -> type[Extractor]:
    """Return the class of a registered extractor.

    Raises:
        ContractError: it breaks its contract.
        SkippedError: it cannot be imported.
    """
    try:
        extractor: type[Extractor] = registry.extractors.load(name)
    except ContractError:
        raise
    except BenchError as error:
        raise SkippedError(str(error)) from error
    return extractor
