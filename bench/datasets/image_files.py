"""Image files: their header, and decoding as a viewer shows them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from bench.datasets.value_range import ValueRange, say_range, to_bytes
from bench.errors import DataUnavailableError

GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"}
DEEP_GREY_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """Facts about an image file.

    Attributes:
        mode: PIL mode of the pixels, such as ``RGB``.
        deep: True if a channel has more than 8 bits.
        orientation: EXIF orientation, 1 for an upright image.
    """

    mode: str
    deep: bool
    orientation: int


@contextmanager
def open_image(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image file with PIL, which decodes it on first use.

    Raises:
        DataUnavailableError: if the file is missing, or cannot be opened or decoded.
    """
    try:
        with Image.open(path) as image:
            yield image
    except DataUnavailableError:
        raise
    except Exception as error:  # PIL's decoders raise different types
        raise DataUnavailableError(f"{path} cannot be read as an image: {error}.") from error


def read_header(path: Path) -> Header:
    """Read the header of an image file.

    Raises:
        DataUnavailableError: if the file cannot be opened, or has an unknown kind of pixels.
    """
    with open_image(path) as image:
        grey = image.mode in DEEP_GREY_MODES
        if not grey and image.mode not in GREY_MODES | COLOUR_MODES:
            raise DataUnavailableError(
                f"{path} has PIL's mode {image.mode}: expected grey or colour."
            )
        # PIL keeps the high byte of each channel of a colour image.
        deep = grey or any(";16" in str(tile[3]) for tile in image.tile)
        # PIL decodes a PNG file to look for metadata behind its pixels, which is slow.
        plain = image.format == "PNG" and not {"exif", "xmp"} & image.info.keys()
        return Header(image.mode, deep, UPRIGHT if plain else _orientation(image))


def decode(path: Path, mode: str) -> Image.Image:
    """Decode an image file and turn it upright, as a viewer does.

    Args:
        path: path of the file.
        mode: PIL mode to convert the image to, ``L`` (grey) or ``RGB``.

    Raises:
        DataUnavailableError: if the file is missing, or is not a readable image.
    """
    with open_image(path) as image:
        image.load()  # PIL itself turns a TIFF file here, and removes the tag.
        turn = TURNS.get(_orientation(image))
        return (image if turn is None else image.transpose(turn)).convert(mode)


def decode_range(path: Path, mode: str, value_range: ValueRange) -> Image.Image:
    """Decode an image file as :func:`decode` does, and map its values to 0..255.

    Args:
        path: path of the file, with any number of bits per channel.
        mode: PIL mode to convert the image to, ``L`` (grey) or ``RGB``.
        value_range: lowest and highest possible value of the file.

    Raises:
        DataUnavailableError: if the file is missing, is not a readable image, or has a value
            outside the range.
    """
    header = read_header(path)
    with open_image(path) as image:
        image.load()
        if header.mode in DEEP_GREY_MODES:
            pixels = np.asarray(image)
        elif header.deep:
            pixels = _deep_pixels(path, image)
        else:
            pixels = np.asarray(image.convert("L" if header.mode in GREY_MODES else "RGB"))
        turn = TURNS.get(_orientation(image))
    try:
        mapped = Image.fromarray(to_bytes(pixels, value_range))
    except ValueError as error:
        raise DataUnavailableError(f"{path} {error}.") from error
    return (mapped if turn is None else mapped.transpose(turn)).convert(mode)


def require_known_range(path: Path, header: Header) -> None:
    """Raise an error if the values of an image file have more than 8 bits.

    Raises:
        DataUnavailableError: if they have; the message says how to give their range.
    """
    if header.deep:
        raise DataUnavailableError(
            f"{path} has PIL's mode {header.mode}: expected 8 bits per channel, grey or colour; "
            f"say the range of the values, for example with {say_range((0, 65535))}."
        )


def _deep_pixels(path: Path, image: Image.Image) -> np.ndarray:
    """Return all 16 bits of a colour image ``(H, W)`` or ``(H, W, 3)``, as stored.

    Raises:
        DataUnavailableError: if the file is not a PNG file.
    """
    from torchvision.io import ImageReadMode, decode_image

    if image.format != "PNG":
        raise DataUnavailableError(
            f"{path} has 16 bits per channel in colour, of which only 8 can be read in the format "
            f"{image.format}: convert it to a PNG file of 16 bits, or to 8 bits."
        )
    pixels = decode_image(str(path), ImageReadMode.UNCHANGED).numpy().transpose(1, 2, 0)
    return pixels[..., 0] if pixels.shape[2] <= 2 else np.ascontiguousarray(pixels[..., :3])


def _orientation(image: Image.Image) -> int:
    orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    return orientation if orientation in TURNS else UPRIGHT
