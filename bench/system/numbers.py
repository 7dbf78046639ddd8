"""Numbers of NumPy and PyTorch as numbers of Python."""

import numbers
from typing import Any

import numpy as np
from torch import Tensor


def python_number(value: Any) -> float | None:
    """Return a number of Python or NumPy, or in a tensor without dimensions, as a Python number.

    Returns:
        An int or a float; None for anything else, such as a boolean or a string.

    >>> import torch
    >>> python_number(torch.tensor(0.5)), python_number(np.int64(3)), python_number([1.0])
    (0.5, 3, None)
    """
    if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def described(value: Any) -> str:
    """Describe a value in a message: by its shape, or in at most 60 characters.

    >>> described(np.zeros((2, 3)))
    'a ndarray of shape (2, 3)'
    """
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
