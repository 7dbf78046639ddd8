"""Batches of samples that outlive an interruption, of samplers that take many steps."""

import hashlib
import logging

import torch
from safetensors.torch import load, save
from torch import Tensor

from bench.model import GenerativeModel
from bench.system.checksums import DamagedFileError, SummedFolder

PREFIX = "samples-"
_LOG = logging.getLogger(__name__)


class FinishedSamples:
    """The batches of samples of one model's weights that are finished, in the cell's folder.

    Args:
        folder: folder of the cell.
        model: the model, with the weights that it samples with.
    """

    def __init__(self, folder: SummedFolder, model: GenerativeModel) -> None:
        self._folder = folder
        weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
        self._weights = hashlib.sha256(save(weights)).hexdigest()[:16]

    def load(self, first: int, generator: torch.Generator) -> Tensor | None:
        """Return a batch ``(N, C, H, W)`` on the generator's device; None if it is not finished.

        Args:
            first: number of samples before the batch.
            generator: generator of the samples, which is set to its state after the batch.
        """
        name = self._name(first)
        if not self._folder.exists(name):
            return None
        try:
            content = load(self._folder.read(name))
        except DamagedFileError as error:
            _LOG.warning("%s: the samples are drawn again", error)
            return None
        generator.set_state(content["generator"])
        return content["images"].to(generator.device)

    def keep(self, first: int, images: Tensor, generator: torch.Generator) -> None:
        """Write a batch.

        Args:
            first: number of samples before the batch.
            images: the batch, ``(N, C, H, W)``.
            generator: generator of the samples, after the batch.
        """
        content = {"images": images.cpu().contiguous(), "generator": generator.get_state().cpu()}
        with self._folder.write(self._name(first)) as file:
            file.write(save(content))

    def _name(self, first: int) -> str:
        return f"{PREFIX}{self._weights}-{first}.safetensors"


def remove_finished(folder: SummedFolder) -> None:
    """Delete all batches in a cell's folder."""
    for path in folder.path.glob(f"{PREFIX}*.safetensors"):
        folder.remove(path.name)
