"""The global random generators: seeded, kept from side effects, written down and put back."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed every global generator, for models that draw from one."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Put every global generator back afterwards to where it was."""
    state = randomness()
    try:
        yield
    finally:
        restore_randomness(state)


def randomness() -> dict[str, Any]:
    """Where every global generator stands, as ``torch.load`` reads it with ``weights_only``."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_randomness(state: Mapping[str, Any]) -> None:
    """Put every global generator where :func:`randomness` found it."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
