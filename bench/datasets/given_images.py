"""Images that someone has made: read from a folder or a file, or given as an array."""

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bench.datasets.arrays import as_images
from bench.datasets.image_files import (
    DEEP_GREY_MODES,
    GREY_MODES,
    decode,
    decode_range,
    open_image,
    read_header,
    require_known_range,
)
from bench.datasets.image_listing import LeftOut, list_images
from bench.datasets.value_range import ValueRange, nearly_black, require_in_range
from bench.errors import BenchError
from bench.system.files import unchanged

# The layout of ADM's samples, and what others write.
KEYS = ("arr_0", "images", "samples")
SUFFIXES = (".npz", ".npy", ".safetensors")
CHANNELS = (1, 3)
MODEL_RANGE: ValueRange = (-1, 1)
_COLOUR = {"RGB", "RGBA", "P", "PA"}


@dataclass(frozen=True)
class GivenImages:
    """Images to score.

    Attributes:
        pixels: images ``(N, C, H, W)``, uint8, or float32 in [-1, 1].
        source: where they come from, for messages and records.
        sha256: hash of shape, type and values, in hex.
    """

    pixels: np.ndarray = field(compare=False, repr=False)
    source: str
    sha256: str

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)


def given_images(source: Any, value_range: ValueRange | None = None) -> GivenImages:
    """Return images as they are to be scored.

    Args:
        source: an array or tensor, or the path of a folder of image files, or of a ``.npz``,
            ``.npy`` or ``.safetensors`` file. Arrays are ``(N, H, W)``, ``(N, H, W, C)`` or
            ``(N, C, H, W)`` with one or three channels; files with names hold them as ``arr_0``,
            ``images`` or ``samples``.
        value_range: lowest and highest possible value; None for integers in 0..255. Floats are
            not rounded.

    Raises:
        BenchError: the images cannot be read, differ in size, or are not what they are said to be.
    """
    if not isinstance(source, str | Path):
        array = source.detach().cpu() if hasattr(source, "detach") else source
        return _images(np.asarray(array), "the images given", value_range)
    path = Path(source).expanduser()
    if not path.exists():
        raise BenchError(f"{path} does not exist: expected a folder of images or a file.")
    with unchanged([path]):
        if path.is_dir():
            # Files are mapped from their range one by one.
            dark = value_range is not None
            return _images(_folder(path, value_range), str(path), None, dark=dark)
        return _images(_file(path), str(path), value_range)


def _images(
    array: np.ndarray, source: str, value_range: ValueRange | None, dark: bool = False
) -> GivenImages:
    try:
        pixels = _model_range(_channels_last(array), value_range)
        if value_range is None and not dark:
            _check_dark(pixels)
    except ValueError as error:
        raise BenchError(f"{source} {error}.") from error
    pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    facts = f"{pixels.shape} {pixels.dtype.str} ".encode()
    return GivenImages(pixels, source, hashlib.sha256(facts + pixels.tobytes()).hexdigest())


def _channels_last(array: np.ndarray) -> np.ndarray:
    """Return images ``(N, H, W, C)`` of one of the layouts.

    Raises:
        ValueError: it is another layout, or could be two of them.
    """
    expected = "expected (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels"
    if array.ndim not in (3, 4) or not array.size:
        raise ValueError(f"holds shape {array.shape}; {expected}")
    if array.ndim == 3:
        return array[..., None]
    last, first = array.shape[3] in CHANNELS, array.shape[1] in CHANNELS
    if last == first:
        raise ValueError(f"holds shape {array.shape}; {expected}, and only one of them")
    return array if last else array.transpose(0, 2, 3, 1)


def _model_range(images: np.ndarray, value_range: ValueRange | None) -> np.ndarray:
    """Return images ``(N, H, W, C)`` as uint8, or floats as float32 in [-1, 1].

    Raises:
        ValueError: values are outside of the range, or floats have none.
    """
    if images.dtype.kind != "f" or value_range is None:
        return as_images(images, value_range).reshape(images.shape)
    require_in_range(images, value_range)
    if value_range == MODEL_RANGE:
        return images.astype(np.float32)
    low, high = value_range
    return ((images.astype(np.float64) - low) / (high - low) * 2 - 1).astype(np.float32)


def _check_dark(pixels: np.ndarray) -> None:
    """Check that integers seem to be of the range 0..255.

    Raises:
        ValueError: they would be nearly black.
    """
    problem = nearly_black(pixels.min(), pixels.max())
    if problem is not None:
        raise ValueError(f"holds {problem}")


def _file(path: Path) -> np.ndarray:
    """Return the array of images in a file.

    Raises:
        BenchError: it cannot be read, or holds no images under a known name.
    """
    readers = {".npz": _npz, ".npy": _npy, ".safetensors": _safetensors}
    if path.suffix not in readers:
        raise BenchError(f"{path}: expected a folder of images, or a file {', '.join(SUFFIXES)}.")
    try:
        return readers[path.suffix](path)
    except BenchError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        hint = " (Python objects are not read: they can run code)" if "pickle" in str(error) else ""
        raise BenchError(f"{path} cannot be read: {error}{hint}.") from error


def _npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as stored:
        return np.asarray(stored[_key(path, stored)])


def _npy(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, allow_pickle=False))


def _safetensors(path: Path) -> np.ndarray:
    stored = load_file(path)
    return stored[_key(path, stored)]


def _key(path: Path, stored: Mapping[str, Any]) -> str:
    found = [key for key in KEYS if key in stored]
    if len(found) == 1:
        return found[0]
    raise BenchError(
        f"{path} has the keys {', '.join(stored) or '(none)'}: expected exactly one of "
        f"{', '.join(KEYS)}."
    )


def _folder(root: Path, value_range: ValueRange | None) -> np.ndarray:
    """Return the images of a folder as uint8 ``(N, H, W)`` or ``(N, H, W, 3)``.

    Raises:
        BenchError: there are none, or one is not like the others.
    """
    left_out = LeftOut()
    names = list_images(root, Path(), left_out)
    if not names:
        found = f"; it holds {left_out}" if left_out else ""
        raise BenchError(
            f"{root} holds no images: expected PNG, JPEG or another format of PIL{found}."
        )
    paths = [root / name for name in names]
    with unchanged(paths):
        modes = {_still(path, value_range) for path in paths}
        mode = "L" if modes <= GREY_MODES | DEEP_GREY_MODES else "RGB"
        images = [_decoded(path, mode, value_range) for path in paths]
    first = images[0].shape
    for path, image in zip(paths, images, strict=True):
        if image.shape != first:
            raise BenchError(
                f"{path} is {image.shape[1]}x{image.shape[0]}, and {paths[0]} is "
                f"{first[1]}x{first[0]}: expected images of one size."
            )
    return np.stack(images)


def _still(path: Path, value_range: ValueRange | None) -> str:
    """Return the PIL mode of an image that shows one opaque picture.

    Raises:
        BenchError: it is animated or transparent, its colours need a profile, or it has more than 8
            bits and no range.
    """
    header = read_header(path)
    with open_image(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise BenchError(f"{path} has {frames} frames: expected a single image.")
        if header.mode not in GREY_MODES | DEEP_GREY_MODES | _COLOUR:
            raise BenchError(f"{path} has PIL's mode {header.mode}: convert it to RGB.")
        if _is_transparent(image):
            raise BenchError(f"{path} is transparent in places: expected opaque images.")
    if value_range is None:
        require_known_range(path, header)
    return header.mode


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return bool(alpha.min() < 255)


def _decoded(path: Path, mode: str, value_range: ValueRange | None) -> np.ndarray:
    if value_range is None:
        return np.asarray(decode(path, mode))
    return np.asarray(decode_range(path, mode, value_range))
