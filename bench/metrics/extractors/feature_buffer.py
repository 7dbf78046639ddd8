"""Rows of features in a temporary file, so that memory does not grow with their number."""

import tempfile
import weakref

import numpy as np
import torch
from torch import Tensor


class FeatureBuffer:
    """Rows of float32 in a temporary file, so that memory does not grow with their number.

    Attributes:
        n: number of rows.

    >>> buffer = FeatureBuffer()
    >>> buffer.add(torch.tensor([[1.0, 2.0]]))
    >>> buffer.add(torch.tensor([[3.0, 4.0], [5.0, 6.0]]))
    >>> buffer.rows().shape
    torch.Size([3, 2])
    """

    def __init__(self) -> None:
        self.n = 0
        self._width = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def add(self, rows: Tensor) -> None:
        """Append rows ``(N, D)``.

        Raises:
            ValueError: a value is not finite, or D differs from the D of earlier rows.
        """
        if not torch.isfinite(rows).all():
            raise ValueError("the features contain values that are not finite")
        if self.n and rows.shape[1] != self._width:
            raise ValueError(
                f"got features of {rows.shape[1]} values after features of {self._width}"
            )
        self._file.write(rows.detach().cpu().float().contiguous().numpy().data)
        self.n, self._width = self.n + len(rows), rows.shape[1]

    def rows(self) -> Tensor:
        """Return all rows ``(N, D)`` as a memory map, read from disk on access."""
        if not self.n:
            return torch.zeros(0, self._width)
        self._file.flush()
        shape = (self.n, self._width)
        return torch.from_numpy(np.memmap(self._file, np.float32, mode="c", shape=shape))
