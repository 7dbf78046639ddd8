"""Weights of a trained model in its cell's folder."""

import io
from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor

from bench.store.schema import old_weights_file, weights_file
from bench.system.checksums import SummedFolder


def write_weights(folder: SummedFolder, label: str, weights: Mapping[str, Tensor]) -> None:
    """Write weights under a label, as safetensors.

    Args:
        folder: folder of the cell.
        label: label of the epoch, see ``BestEpochs``.
        weights: tensors ``(...)`` of the model's ``state_dict``, on the CPU.
    """
    with folder.write(weights_file(label)) as file:
        file.write(save({name: value.contiguous() for name, value in weights.items()}))


def has_weights(folder: SummedFolder, label: str) -> bool:
    """Return True if there are weights under a label."""
    return folder.exists(weights_file(label)) or folder.exists(old_weights_file(label))


def read_weights(folder: SummedFolder, label: str) -> dict[str, Tensor]:
    """Return the weights under a label, tensors ``(...)`` by name, on the CPU.

    Args:
        folder: folder of the cell.
        label: label of the epoch.

    Raises:
        DamagedFileError: if the file was changed after it was written.
    """
    if folder.exists(weights_file(label)):
        return load(folder.read(weights_file(label)))
    file = io.BytesIO(folder.read(old_weights_file(label)))
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return weights
