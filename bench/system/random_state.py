"""The state of the global random generators: seeding, saving and restoring."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Restore the state of the global generators when the block ends.

    >>> seed_everything(0)
    >>> with preserved_randomness():
    ...     inside = torch.rand(3)
    >>> bool((torch.rand(3) == inside).all())
    True
    """
    state = randomness()
    try:
        yield
    finally:
        restore_randomness(state)


def randomness() -> dict[str, Any]:
    """Return the state of every global generator.

    ``torch.load`` can read it with ``weights_only=True``.
    """
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_randomness(state: Mapping[str, Any]) -> None:
    """Restore the global generators to a state that :func:`randomness` returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
