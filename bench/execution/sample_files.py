"""Files of samples: arrays in the layouts that others read, or a folder of PNG files."""

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save
from torch import Tensor

from bench.datasets.batches import to_pixels
from bench.datasets.given_images import SUFFIXES
from bench.errors import BenchError
from bench.system.files import atomic

KEY = "samples"


def check_target(out: Path) -> None:
    """Check that samples can be written to a path, before they are drawn.

    Raises:
        BenchError: it has another suffix, or is a file or folder that exists.
    """
    if out.suffix not in {"", *SUFFIXES}:
        raise BenchError(
            f"{out}: expected a file {', '.join(SUFFIXES)}, or a folder for PNG files."
        )
    if out.exists():
        raise BenchError(f"{out} exists: choose another path, or delete it.")


def write_samples(batches: Iterable[tuple[Tensor, Tensor | None]], out: Path) -> None:
    """Write images, and nothing if an error occurs.

    ``.npz`` holds ``arr_0`` as ADM's evaluation reads it, uint8 ``(N, H, W, C)``, and ``arr_1``,
    the labels of a class-conditional model; a folder holds PNG files. ``.npy`` and ``.safetensors``
    hold float32 in [-1, 1], ``(N, C, H, W)``, as the model made them.

    Args:
        batches: images ``(B, C, H, W)``, float32 in [-1, 1], and their labels ``(B,)`` or None.
        out: path of the file or folder.
    """
    in_bytes = out.suffix in {"", ".npz"}
    parts, known = [], []
    for batch, labels in batches:
        parts.append(_pixels(batch) if in_bytes else batch.cpu().numpy())
        known += [] if labels is None else [labels.cpu().numpy()]
    images = np.concatenate(parts)
    if not out.suffix:
        _write_folder(images, out)
        return
    with atomic(out) as file:
        if out.suffix == ".npz":
            np.savez(file, images, *([np.concatenate(known)] if known else []))
        elif out.suffix == ".npy":
            np.save(file, images)
        else:
            file.write(save({KEY: images}))


def _pixels(images: Tensor) -> np.ndarray:
    """Return uint8 images ``(N, H, W, C)`` of float images ``(N, C, H, W)`` in [-1, 1]."""
    return to_pixels(images).permute(0, 2, 3, 1).cpu().numpy()


def _write_folder(pixels: np.ndarray, out: Path) -> None:
    temporary = out.parent / f".{out.name}.{uuid.uuid4().hex}"
    digits = len(str(len(pixels) - 1))
    try:
        temporary.mkdir(parents=True)
        for number, image in enumerate(pixels):
            grey = image[..., 0] if image.shape[-1] == 1 else image
            Image.fromarray(grey).save(temporary / f"{number:0{digits}}.png")
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
