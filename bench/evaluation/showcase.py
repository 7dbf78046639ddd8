"""Example outputs of a trained model: reconstructions, samples, noisy latents, spikes."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image

from bench.datasets.batches import to_pixels, to_unit_range
from bench.evaluation.class_labels import drawn_labels, labels_for
from bench.evaluation.context import CellContext
from bench.evaluation.passes import check_images
from bench.metrics.noise import LATENT_SHUFFLE, NoiseStream, flip, shuffle
from bench.model import GenerativeModel
from bench.recording.spikes import recording
from bench.store.schema import IMAGES_FILE, IMAGES_FOLDER, SPIKES_FILE
from bench.system.checksums import SummedFolder
from bench.system.random_state import seed_everything

GRIDS = ("inputs", "reconstructions", "samples")
GRID_IMAGES = 32
GRID_COLUMNS = 8
# The flip rates of Figure 1 in ESVAE's paper (arXiv:2310.14839).
FLIP_LEVELS = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)


@dataclass(frozen=True)
class Showcase:
    """Outputs of a model for a few test images, as far as its capabilities go.

    Attributes:
        images: images in [-1, 1], ``(N, C, H, W)``, by name: ``inputs``, ``reconstructions``,
            ``samples``, ``latent_shuffle`` (decoded from the latent's time steps in random order)
            and ``latent_flip`` ``(L, N, C, H, W)`` (decoded from latents flipped at
            :data:`FLIP_LEVELS`).
        spikes: boolean latents ``(T, N, D)`` of a spiking model: ``posterior`` and ``prior``.
    """

    images: Mapping[str, Tensor]
    spikes: Mapping[str, Tensor]


@torch.no_grad()
def showcase(model: GenerativeModel, context: CellContext) -> Showcase:
    """Compute the outputs of a model for images spread evenly over the test set.

    So a test set that is sorted by class shows every class, and every model of a dataset gets the
    same images. Spikes are checked here, whatever the metrics of the cell.

    Raises:
        ValueError: if images, or spikes of a layer, break the contract of a model.
    """
    generator = _seeded(model, context)
    inputs, labels = example_inputs(context), _labels(model, context)
    images, spikes = {"inputs": inputs} | _main_outputs(model, context, generator), {}
    if {"encode", "decode"} <= model.capabilities:
        latents = model.encode(inputs, generator, **labels)
        images |= _under_latent_noise(model, latents, context.seed, labels)
        if model.spiking_latents:
            spikes["posterior"] = latents.bool()
    if model.spiking_latents and "sample_latents" in model.capabilities:
        spikes["prior"] = model.sample_latents(GRID_IMAGES, generator).bool()
    return Showcase(images, spikes)


@torch.no_grad()
def main_outputs(model: GenerativeModel, context: CellContext) -> dict[str, Tensor]:
    """Compute the reconstructions and samples of :func:`showcase` alone, as far as it can.

    Args:
        model: the model.
        context: data and seed of its cell. The global generators are seeded with it.

    Returns:
        Images in [-1, 1], ``(N, C, H, W)``, by name.
    """
    return _main_outputs(model, context, _seeded(model, context))


def example_inputs(context: CellContext) -> Tensor:
    """Return the test images ``(N, C, H, W)`` in [-1, 1] that a showcase reconstructs."""
    test = context.test_images
    return to_unit_range(test[spread(len(test)).to(test.device)])


def _seeded(model: GenerativeModel, context: CellContext) -> torch.Generator:
    seed_everything(context.seed)
    return torch.Generator(model.device).manual_seed(context.seed)


def _labels(model: GenerativeModel, context: CellContext) -> dict[str, Tensor]:
    """Return the labels of the inputs, if the model takes any."""
    known, places = context.test_labels, spread(len(context.test_images))
    return labels_for(model, None if known is None else known[places]).of(0, len(places))


def _main_outputs(
    model: GenerativeModel, context: CellContext, generator: torch.Generator
) -> dict[str, Tensor]:
    inputs, images = example_inputs(context), {}
    if "reconstruct" in model.capabilities:
        with _checking_spikes(model, len(inputs)):
            images["reconstructions"] = model.reconstruct(
                inputs, generator, **_labels(model, context)
            )
        check_images(images["reconstructions"], inputs.shape, "reconstruct")
    if "sample" in model.capabilities:
        with _checking_spikes(model, GRID_IMAGES):
            images["samples"] = model.sample(GRID_IMAGES, generator, **_drawn(model, context))
        check_images(images["samples"], (GRID_IMAGES, *inputs.shape[1:]), "sample")
    return images


def _checking_spikes(model: GenerativeModel, images: int) -> AbstractContextManager[object]:
    """Return a context in which layers of a spiking model are recorded, which checks them."""
    return recording(model, images) if model.spiking else nullcontext()


def spread(n: int) -> Tensor:
    """Return the indices ``(M,)`` of at most ``GRID_IMAGES`` of n images, evenly spread.

    >>> spread(3).tolist()
    [0, 1, 2]
    """
    return torch.linspace(0, n - 1, min(GRID_IMAGES, n)).long()


def save_showcase(outputs: Showcase, folder: SummedFolder) -> None:
    """Write ``images/*.png`` to look at, and ``images.npz`` (uint8) and ``spikes.npz`` to plot."""
    for name in GRIDS:
        if name in outputs.images:
            _save_grid(outputs.images[name], folder, f"{IMAGES_FOLDER}/{name}.png")
    arrays = {name: to_pixels(images).cpu().numpy() for name, images in outputs.images.items()}
    if "latent_flip" in arrays:
        arrays["latent_flip_levels"] = np.array(FLIP_LEVELS)
    _save_arrays(arrays, folder, IMAGES_FILE)
    if outputs.spikes:
        spikes = {name: trains.cpu().numpy() for name, trains in outputs.spikes.items()}
        _save_arrays(spikes, folder, SPIKES_FILE)


def _drawn(model: GenerativeModel, context: CellContext) -> dict[str, Tensor]:
    labels = drawn_labels(model, context.class_counts, GRID_IMAGES, context.seed)
    return labels.of(0, GRID_IMAGES)


def _under_latent_noise(
    model: GenerativeModel, latents: Tensor, seed: int, labels: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    draws = NoiseStream(seed, "latent_flip", 0)
    flipped = [model.decode(flip(latents, level, draws), **labels) for level in FLIP_LEVELS]
    images = {"latent_flip": torch.stack(flipped)}
    if model.spiking_latents:
        shuffled = shuffle(latents, NoiseStream(seed, LATENT_SHUFFLE, 0))
        images[LATENT_SHUFFLE] = model.decode(shuffled, **labels)
    return images


def grids(images: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return images as grids to look at.

    Args:
        images: images in [-1, 1], ``(N, C, H, W)``, by name.

    Returns:
        uint8 arrays ``(H, W, 3)`` of grids, by name.
    """
    drawn = {n: make_grid(to_pixels(each), nrow=GRID_COLUMNS) for n, each in images.items()}
    return {name: grid.permute(1, 2, 0).cpu().numpy() for name, grid in drawn.items()}


def _save_grid(images: Tensor, folder: SummedFolder, name: str) -> None:
    with folder.write(name) as file:
        save_image(
            images, file, format="png", nrow=GRID_COLUMNS, normalize=True, value_range=(-1, 1)
        )


def _save_arrays(arrays: Mapping[str, np.ndarray], folder: SummedFolder, name: str) -> None:
    with folder.write(name) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
