"""Weights of a model that someone has trained, read from a safetensors file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from bench.errors import BenchError, one_line
from bench.store.trained_weights import weights_sha256
from bench.system.files import unchanged

# Names that are listed in a message.
SHOWN = 3


@dataclass(frozen=True)
class GivenWeights:
    """Weights to score.

    Attributes:
        tensors: tensors ``(...)`` of a model's ``state_dict``, on the CPU.
        source: where they come from, for messages and records.
        sha256: hash of names, types, shapes and values, in hex.
    """

    tensors: Mapping[str, Tensor] = field(compare=False, repr=False)
    source: str
    sha256: str


def given_weights(path: Path) -> GivenWeights:
    """Read weights from a safetensors file.

    Raises:
        BenchError: the file cannot be read, is of another kind, or holds a value that is not
            finite.
    """
    try:
        with unchanged([path]):
            tensors = load(path.read_bytes())
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {one_line(error)}") from error
    except SafetensorError as error:
        raise BenchError(
            f"{path} holds no weights in the format safetensors ({one_line(error)}). Others are "
            "not read, since some can run code: write the file with safetensors.torch.save_file("
            "model.state_dict(), path)."
        ) from error
    tensors = dict(sorted(tensors.items()))
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BenchError(f"{path}: {name} has values that are NaN or infinite.")
    return GivenWeights(tensors, str(path), weights_sha256(tensors))


def check_fit(weights: GivenWeights, model: nn.Module) -> None:
    """Check that weights have the names and shapes of a model's.

    Raises:
        BenchError: some are missing, unknown, or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    wrong = [
        f"{name} {found[name]} where the model has {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "of another shape": wrong,
    }
    told = [f"{what}: {_shown(names)}" for what, names in problems.items() if names]
    if told:
        raise BenchError(
            f"The weights in {weights.source} are not those that {type(model).__name__} has under "
            f"this protocol: {'; '.join(told)}."
        )


def _shown(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
