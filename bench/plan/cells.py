"""Cells: the units of work of a run, each known by what moves its numbers."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from bench.datasets.dataset import DatasetInfo
from bench.datasets.given_images import GivenImages
from bench.protocol import Protocol
from bench.store.schema import DATASET, EXTRACTOR, MODEL, REAL_IMAGES, TEST, TRAIN, Kind
from bench.system.paths import safe_name
from bench.training.given_weights import GivenWeights


@dataclass(frozen=True)
class Cell:
    """One (model, backend, dataset, protocol, seed): the unit of work, caching and failure.

    Attributes:
        model: registered name, or the name that was given to what is scored.
        model_version: version of the model's code.
        backend: registered name, or ``torch`` for a model without spiking neurons.
        dataset: name of the dataset.
        info: facts about the dataset; None if it is unavailable.
        protocol: the protocol as requested, with its overrides.
        seed: seed of every random draw.
        skipped: why the cell cannot run; None if it can.
        kind: what the cell's rows are of: a model, an extractor that metrics use, or the dataset.
        trains: True if a network is trained in the cell.
    """

    model: str
    model_version: str
    backend: str
    dataset: str
    info: DatasetInfo | None
    protocol: Protocol
    seed: int
    skipped: str | None = None
    kind: ClassVar[Kind] = MODEL
    trains: ClassVar[bool] = True

    @property
    def registered_model(self) -> str:
        """Registered name of the model, by which the protocol's settings hold."""
        return self.model

    @property
    def is_prerequisite(self) -> bool:
        """True if other cells of the dataset can only be evaluated after this one."""
        return self.kind == EXTRACTOR

    @cached_property
    def key(self) -> str:
        """Content key, 16 hex digits: anything that moves a number changes it."""
        canonical = json.dumps(self.content, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def content(self) -> dict[str, Any]:
        """The values that the key is a hash of."""
        return {
            "model": self.model,
            "model_version": self.model_version,
            "backend": self.backend,
            "dataset": self.dataset,
            "fingerprint": self.info.fingerprint if self.info else None,
            "protocol": self.protocol_hash,
            "seed": self.seed,
        }

    @cached_property
    def protocol_hash(self) -> str:
        """SHA-256 of the values of the protocol that hold for this cell, as 64 hex digits."""
        return self.resolved.hash

    @property
    def train_size(self) -> int:
        """Number of images that the cell trains on; 0 if the dataset is unavailable."""
        size = self.info.train_size if self.info else 0
        return min(size, self.resolved.train_images or size)

    @property
    def test_size(self) -> int:
        """Number of test images of the cell; 0 if the dataset is unavailable."""
        size = self.info.test_size if self.info else 0
        return min(size, self.resolved.test_images or size)

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of images of each split that every dataset has."""
        return {TRAIN: self.train_size, TEST: self.test_size}

    @property
    def scored_images(self) -> int:
        """Number of generated images that metrics score, or of what takes their place."""
        return self.resolved.generated_images

    @property
    def protocol_name(self) -> str:
        """Name of the protocol in the cell's rows."""
        return self.protocol.name_for(self.registered_model)

    @property
    def title(self) -> str:
        """Name of the cell in progress reports and logs."""
        return f"{self.model} {self.backend} {self.dataset} {self.protocol_name} seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name of the cell's folder: readable, unique by its key, safe on any file system.

        It does not hold the name of the protocol: two protocols of the same values share the cell.
        """
        name = "-".join((self.model, self.backend, self.dataset, f"s{self.seed}"))
        return f"{safe_name(name)}-{self.key}"

    @cached_property
    def resolved(self) -> Protocol:
        """The protocol as it holds for the cell's model and dataset."""
        return self.protocol.resolve(self.registered_model, self.dataset)

    def without_data(self) -> "Cell":
        """Return the cell that stands in for this one while its dataset is unavailable."""
        return replace(self, info=None, skipped=None)


@dataclass(frozen=True)
class SharedCell(Cell):
    """A cell that models of a dataset share if the settings that it depends on are the same.

    Attributes:
        fields: names of the protocol's fields that move its numbers.
        user: registered name of one of these models; the protocol holds as for that model.
    """

    fields: tuple[str, ...] = ()
    user: str = ""

    @cached_property
    def resolved(self) -> Protocol:
        """The protocol as it holds for the models that share the cell."""
        return self.protocol.resolve(self.user, self.dataset)

    @property
    def protocol_name(self) -> str:
        """Name of the protocol, whichever models share the cell."""
        return self.protocol.name

    @cached_property
    def protocol_hash(self) -> str:
        """SHA-256 of the values of the protocol that move the cell's numbers."""
        return self.resolved.hash_of(self.fields)


@dataclass(frozen=True)
class ExtractorCell(SharedCell):
    """The cell that trains an extractor once, for all cells of a dataset that use it.

    Attributes:
        extractor: registered name.
    """

    extractor: str = ""
    kind: ClassVar[Kind] = EXTRACTOR

    @property
    def content(self) -> dict[str, Any]:
        """The values that the key is a hash of."""
        return {**super().content, "extractor": self.extractor}


@dataclass(frozen=True)
class DatasetCell(SharedCell):
    """The cell of real images or of noise, which give the scale of Fréchet distances."""

    kind: ClassVar[Kind] = DATASET
    trains: ClassVar[bool] = False

    @property
    def scored_images(self) -> int:
        """Number of images that metrics score: less than asked for if there are fewer real ones."""
        if self.model != REAL_IMAGES:
            return super().scored_images
        return min(self.split_sizes[self.resolved.other_split], super().scored_images)


@dataclass(frozen=True)
class ImagesCell(Cell):
    """The cell of images that exist: it is scored, and nothing is trained.

    Attributes:
        generated: generated images.
        reconstructions: reconstructions of all test images, in their order; None if there are none.
    """

    generated: GivenImages = field(kw_only=True)
    reconstructions: GivenImages | None = field(kw_only=True, default=None)
    trains: ClassVar[bool] = False

    @property
    def content(self) -> dict[str, Any]:
        """The values that the key is a hash of."""
        given = self.reconstructions
        return {
            **super().content,
            "generated": self.generated.sha256,
            "reconstructions": None if given is None else given.sha256,
        }


@dataclass(frozen=True)
class WeightsCell(Cell):
    """The cell of a model whose weights exist: it is scored, and nothing is trained.

    Attributes:
        registered: registered name of the model.
        weights: its weights.
    """

    registered: str = field(kw_only=True)
    weights: GivenWeights = field(kw_only=True)
    trains: ClassVar[bool] = False

    @property
    def registered_model(self) -> str:
        """Registered name of the model, by which the protocol's settings hold."""
        return self.registered

    @property
    def content(self) -> dict[str, Any]:
        """The values that the key is a hash of."""
        return {**super().content, "registered": self.registered, "weights": self.weights.sha256}
