"""The range of stored pixel values: mapping to 0..255, and detection of images without a range."""

import numpy as np

ValueRange = tuple[float, float]

FULL: ValueRange = (0, 255)
# Images of the range 0..255 whose largest value is smaller would be all but black.
LEAST_MAXIMUM = 64
BIT_DEPTHS = (10, 12, 14, 16)
CHUNK = 1000


def to_bytes(images: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Map the values of images from a range to 0..255.

    Args:
        images: numbers or booleans ``(N, ...)``.
        value_range: lowest and highest possible value.

    Returns:
        uint8 images of the same shape.

    Raises:
        ValueError: if a value lies outside the range.

    >>> to_bytes(np.array([0, 8, 16]), (0, 16))
    array([  0, 128, 255], dtype=uint8)
    """
    require_in_range(images, value_range)
    low, high = value_range
    mapped = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        mapped[part] = np.rint((images[part].astype(np.float64) - low) * (255 / (high - low)))
    return mapped


def require_in_range(images: np.ndarray, value_range: ValueRange) -> None:
    """Check that the values of images ``(N, ...)`` lie in a range.

    Args:
        images: numbers or booleans.
        value_range: lowest and highest possible value.

    Raises:
        ValueError: one lies outside the range, or is NaN.
    """
    low, high = value_range
    if not (images.min() >= low and images.max() <= high):
        raise ValueError(
            f"holds {describe_values(images)}; expected values in the given range {low:g}..{high:g}"
        )


def describe_values(images: np.ndarray) -> str:
    """Return the type of images ``(N, ...)`` and, for numbers, the range of their values.

    >>> describe_values(np.array([0.0, 0.5]))
    'float64 values in 0..0.5'
    """
    if images.dtype.kind not in "iuf":
        return str(images.dtype)
    if not np.isfinite(images).all():
        return f"{images.dtype} with non-finite values"
    return f"{images.dtype} values in {images.min():g}..{images.max():g}"


def likely_range(lowest: float, highest: float) -> ValueRange:
    """Guess the range of images from their lowest and highest value.

    >>> likely_range(0, 16), likely_range(0.0, 0.98), likely_range(-0.9, 1.0), likely_range(3, 4090)
    ((0, 16), (0, 1), (-1, 1), (0, 4095))
    """
    if lowest < 0:
        return int(np.floor(lowest)), int(np.ceil(highest))
    if highest <= FULL[1]:
        return 0, max(int(np.ceil(highest)), 1)
    depths = (2**bits - 1 for bits in BIT_DEPTHS if 2**bits > highest)
    return 0, next(depths, int(np.ceil(highest)))


def say_range(value_range: ValueRange) -> str:
    """Return how to give a range, on the command line and in Python.

    >>> say_range((0, 16))
    '--range 0,16 (in Python image_range=(0, 16))'
    """
    low, high = (f"{value:g}" for value in value_range)
    return f"--range {low},{high} (in Python image_range=({low}, {high}))"


def scaled_floats(lowest: float, highest: float) -> str:
    """Return the NumPy expression that scales floats to 0..255, judged by their extremes.

    >>> scaled_floats(0.0, 0.9), scaled_floats(-1.0, 1.0), scaled_floats(0.0, 255.0)
    ('images * 255', '(images + 1) * 127.5', 'images')
    """
    if lowest < 0:
        return "(images + 1) * 127.5"
    return "images * 255" if highest <= 1 else "images"


def describe_mapping(value_range: ValueRange | None) -> str:
    """Return the end of a dataset's source: the range that is mapped to 0..255, if there is one.

    >>> describe_mapping((0, 16)), describe_mapping(None)
    (', values 0..16 mapped to 0..255', '')
    """
    if value_range is None:
        return ""
    low, high = value_range
    return f", values {low:g}..{high:g} mapped to 0..255"


def nearly_black(lowest: float, highest: float) -> str | None:
    """Return why values cannot be taken as 0..255 and what to do; None if they can.

    Args:
        lowest: lowest value of all images.
        highest: highest value of all images.
    """
    if highest >= LEAST_MAXIMUM:
        return None
    return (
        f"values in {lowest:g}..{highest:g}, which are nearly black in 0..255: say the range that "
        f"they can have, for example {say_range(likely_range(lowest, highest))}, or --range 0,255 "
        "if the images are this dark"
    )
