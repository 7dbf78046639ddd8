"""Observation of random draws: which generator they use, and on which device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from bench.system.random_state import randomness
from bench.testing.checks import require

_FACTORIES = {torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal}


class _Factories(TorchFunctionMode):
    """Collects calls that draw from a generator without naming a device.

    Args:
        generator: the generator.

    Attributes:
        without_device: names of the functions that were called so.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator
        self.without_device: set[str] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        draws = func in _FACTORIES and given.get("generator") is self._generator
        tensors = any(isinstance(value, torch.Tensor) for value in args)
        if draws and not tensors and "device" not in given and "out" not in given:
            self.without_device.add(func.__name__)
        return func(*args, **given)


@contextmanager
def draws_from(generator: torch.Generator, method: str) -> Iterator[None]:
    """Require that nothing in the context draws from a global generator, or without a device.

    Args:
        generator: the generator to draw from.
        method: what runs in the context, for the message.

    Raises:
        CheckFailedError: when the context ends.
    """
    before = randomness()
    with _Factories(generator) as factories:
        yield
    after = randomness()
    for library, words in (("torch", "PyTorch"), ("numpy", "NumPy"), ("python", "Python")):
        require(
            _same(before[library], after[library]),
            f"{method} draws from the global generator of {words}: draw with generator=generator, "
            "device=generator.device",
        )
    names = ", ".join(f"torch.{name}" for name in sorted(factories.without_device))
    require(
        not names,
        f"{method} calls {names} without a device, which draws on the CPU: add "
        "device=generator.device",
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple | list):
        return all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
