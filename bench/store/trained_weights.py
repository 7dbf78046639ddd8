"""Weights of trained extractors as safetensors files, which say what the weights depend on."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from bench.errors import BenchError, one_line
from bench.store.run_directory import load_results
from bench.store.schema import CELLS, EXTRACTOR_FILE, EXTRACTORS_FOLDER
from bench.system.checksums import content_key
from bench.system.paths import TrainedFile, safe_name

# The one entry of a file's metadata. Several would be written in random order.
METADATA = "bench"
SUFFIX = ".safetensors"
# Digits of the key in the name of a reference's file.
KEY_DIGITS = 16


class DamagedWeightsError(Exception):
    """A file does not hold the weights that its metadata describe."""


@dataclass(frozen=True)
class TrainedWeights:
    """The weights of a trained extractor.

    Attributes:
        extractor: name of the extractor's cell.
        dataset: name of the dataset.
        content: everything that the weights depend on, as JSON values.
        tensors: weights by name, on the CPU, in the order of the network.
    """

    extractor: str
    dataset: str
    content: Mapping[str, object]
    tensors: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        """Name of the weights; see :func:`weights_name`."""
        return weights_name(self.extractor, self.content)

    @property
    def file_name(self) -> str:
        """Name of the file in a reference, without its folder."""
        key = content_key(self.content)[:KEY_DIGITS]
        return f"{safe_name(f'{self.extractor}-{self.dataset}')}-{key}{SUFFIX}"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the tensors; see :func:`weights_sha256`."""
        return weights_sha256(self.tensors)

    def to_bytes(self) -> bytes:
        """Return the content of a safetensors file; the same weights give the same bytes."""
        facts = {
            "extractor": self.extractor,
            "dataset": self.dataset,
            "content": self.content,
            "sha256": self.sha256,
            "order": list(self.tensors),
        }
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        return safetensors.torch.save(tensors, {METADATA: json.dumps(facts, sort_keys=True)})

    @classmethod
    def from_bytes(cls, payload: bytes) -> "TrainedWeights":
        """Read the content of a safetensors file, and check the SHA-256 of the tensors.

        Raises:
            DamagedWeightsError: the file is truncated, altered, or of another kind.
        """
        try:
            loaded = safetensors.torch.load(payload)
            facts = json.loads(_metadata(payload)[METADATA])
            tensors = {name: loaded[name] for name in facts["order"]}
            weights = cls(facts["extractor"], facts["dataset"], facts["content"], tensors)
            expected = facts["sha256"]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise DamagedWeightsError(f"it cannot be read ({one_line(error)})") from error
        if len(loaded) != len(tensors) or weights.sha256 != expected:
            raise DamagedWeightsError(f"the SHA-256 {weights.sha256} is not {expected}")
        return weights


def weights_name(extractor: str, content: Mapping[str, object]) -> str:
    """Return the name of trained weights: the extractor's, and a hash of what they depend on.

    Args:
        extractor: name of the extractor's cell.
        content: everything that the weights depend on, as JSON values.

    >>> weights_name("fad_autoencoder", {"epochs": 3})[:24]
    'fad_autoencoder-543da7ab'
    """
    return f"{extractor}-{content_key(content)}"


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of the names, types, shapes and bytes of tensors ``(...)``."""
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # NumPy has no bfloat16, so the bytes are taken from PyTorch.
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(content.numpy().data)
    return digest.hexdigest()


def read_weights(path: Path) -> TrainedWeights:
    """Read a file of trained weights.

    Raises:
        BenchError: the file cannot be read or is damaged.
    """
    try:
        return TrainedWeights.from_bytes(path.read_bytes())
    except (OSError, DamagedWeightsError) as error:
        raise BenchError(
            f"The weights in {path} are damaged: {error}. Restore the file, or delete it and "
            "repeat the command that wrote it."
        ) from error


def stored_weights(run: Path, known: Iterable[str]) -> Iterator[tuple[Path, TrainedWeights]]:
    """Yield the files of trained weights in a run directory or reference that belong to its rows.

    Args:
        run: the run directory or reference.
        known: SHA-256 of the weights that the rows name.

    Raises:
        BenchError: a file is damaged, or a file of a reference has weights that no row names.
    """
    known = set(known)
    for path in sorted((run / EXTRACTORS_FOLDER).glob(f"*{SUFFIX}")):
        weights = read_weights(path)
        if weights.sha256 not in known or weights.file_name != path.name:
            raise BenchError(
                f"The weights in {path} do not belong to the rows of {run}: their SHA-256 is "
                f"{weights.sha256}, and they are for {weights.file_name}. Restore the file, or "
                "delete it."
            )
        yield path, weights
    for path in sorted((run / CELLS).glob(f"*/{EXTRACTOR_FILE}")):
        weights = read_weights(path)
        if weights.sha256 in known:
            yield path, weights


def reference_weights(reference: Path) -> dict[str, TrainedFile]:
    """Return the files of trained weights in a reference, by the name of the weights.

    Args:
        reference: a reference or another run directory.

    Raises:
        BenchError: ``reference`` is not a run directory, or one of its files of weights is damaged
            or does not belong to its rows.
    """
    known = load_results(reference)["extractor_sha256"].dropna()
    return {
        weights.name: TrainedFile(path.resolve(), weights.dataset, weights.sha256)
        for path, weights in stored_weights(reference, known)
    }


def _metadata(payload: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: its header follows its length in 8 bytes."""
    length = int.from_bytes(payload[:8], "little")
    return json.loads(payload[8 : 8 + length])["__metadata__"]
