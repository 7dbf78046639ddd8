"""CUDA graphs: calls on a GPU that are recorded once and then replayed without the host's work.

Small layers keep a GPU waiting for the host, which launches hundreds of kernels a step; a graph
launches them all at once (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import one_line

# Libraries prepare their work in the first calls, which cannot be captured.
WARM_UP_CALLS = 3
_WAITS = "called a synchronizing CUDA operation"
_LOG = logging.getLogger(__name__)


class GraphedFunction:
    """A function of tensors that runs as it is at first, and from a CUDA graph once it is captured.

    The first calls run as they are and are watched. A function that waits for the GPU, returns
    anything but tensors on it, or changes a module other than in place, would not do the same from
    a graph; it goes on as it is, for the reason in :attr:`eager`.

    Args:
        name: name of the function, for the log.
        function: takes tensors, and returns a tensor or tensors by name.
        module: module that the function belongs to.
        device: its device.
        capturable: True if the module says that the function can be captured.
        generator: generator on that device that the function draws from, besides the default one.

    Attributes:
        eager: reason why no call is replayed; None before it is known, and of a graph.
        replayed: number of calls that were replayed.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Tensor | Mapping[str, Any]],
        module: nn.Module,
        *,
        device: torch.device,
        capturable: bool,
        generator: torch.Generator | None = None,
    ) -> None:
        self.replayed = 0
        self._name, self._function, self._module = name, function, module
        self._generator = generator
        self._device = device
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: Any = None
        self.eager = _known_reason(self._device, capturable)

    @property
    def ready(self) -> bool:
        """True if the next call is like all that follow."""
        return self.eager is not None or self._graph is not None

    def __call__(self, *inputs: Tensor) -> Any:
        """Return what the function returns; the inputs ``(...)`` keep their shapes between calls.

        Raises:
            ValueError: the shape of an input is another than when the graph was captured.
        """
        if not self.ready and self._calls == WARM_UP_CALLS:
            self._capture()
        if self.eager is not None:
            return self._function(*inputs)
        if self._graph is None:
            return self._warm_up(inputs)
        for static, given in zip(self._inputs, inputs, strict=True):
            if static.shape != given.shape:
                raise ValueError(
                    f"captured with inputs {tuple(static.shape)}, called with {tuple(given.shape)}"
                )
            static.copy_(given)
        self._graph.replay()
        self.replayed += 1
        return _copies(self._outputs)

    def _run_eagerly(self, reason: str) -> None:
        self.eager = reason
        _LOG.info("%s is not captured in a CUDA graph: %s", self._name, reason)

    def _warm_up(self, inputs: tuple[Tensor, ...]) -> Any:
        """Call the function on a stream of its own, as PyTorch asks for, and watch it."""
        self._calls += 1
        if not self._inputs:
            self._inputs = tuple(given.clone() for given in inputs)
        places, numbers = _places(self._module), _numbers(self._module)
        current, stream = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream), _waits_for_the_gpu() as waits:
            outputs = self._function(*inputs)
        current.wait_stream(stream)
        # Before the last of these calls, libraries may wait while they prepare.
        if self._calls == WARM_UP_CALLS:
            moved = _changed(places, _places(self._module))
            counted = _changed(numbers, _numbers(self._module))
            reasons = [
                moved and f"it puts another tensor in the place of {moved}",
                counted and f"it counts in {counted}",
                _foreign(outputs, self._device),
                *waits,
            ]
            if reason := next(filter(None, reasons), None):
                self._run_eagerly(reason)
        return outputs

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        if self._generator is not None:
            graph.register_generator_state(self._generator)
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph):
                self._outputs = self._function(*self._inputs)
        except RuntimeError as error:
            self._outputs = None
            self._run_eagerly(one_line(error))
            return
        self._graph = graph
        _LOG.info("%s runs from a CUDA graph", self._name)


def _known_reason(device: torch.device, capturable: bool) -> str | None:
    if device.type != "cuda":
        return "a CPU has no CUDA graphs"
    return None if capturable else "the model does not say that it can be captured"


def _copies(outputs: Any) -> Any:
    """Return copies of a graph's outputs, which its next replay writes over."""
    if isinstance(outputs, Tensor):
        return outputs.clone()
    return {name: value.clone() for name, value in outputs.items()}


def _places(module: nn.Module) -> dict[str, int]:
    """Return the address of each parameter and buffer, by name."""
    return {name: value.data_ptr() for name, value in module.state_dict(keep_vars=True).items()}


def _numbers(module: nn.Module) -> dict[str, float]:
    """Return the attributes of all submodules that are numbers, by name."""
    return {
        f"{name}.{key}".lstrip("."): value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, int | float)
    }


def _changed(before: Mapping[str, float], after: Mapping[str, float]) -> str | None:
    """Return the first name whose value changed, or None."""
    return next((name for name, value in after.items() if before.get(name) != value), None)


def _foreign(outputs: Any, device: torch.device) -> str | None:
    """Return which output is no tensor on the device, as a reason; None if all are."""
    named = outputs if isinstance(outputs, Mapping) else {"its result": outputs}
    for name, value in named.items():
        if not isinstance(value, Tensor) or value.device.type != device.type:
            return f"{name} is no tensor on the GPU"
    return None


@contextmanager
def _waits_for_the_gpu() -> Iterator[list[str]]:
    """Yield a list of the places where the host waits for the GPU, which is filled at the end."""
    found: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if _WAITS in str(warning.message):
            found.append(f"it waits for the GPU ({warning.filename}, line {warning.lineno})")
        elif "prototype feature" not in str(warning.message):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
