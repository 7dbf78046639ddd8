"""Measurement of the forward and backward time of each layer of a model."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from bench.backend import SpikingNeuron
from bench.store import schema


class Place(NamedTuple):
    """Place that time is attributed to.

    Attributes:
        layer: name of the layer.
        phase: ``forward`` or ``backward``.
    """

    layer: str
    phase: str


ELSEWHERE = Place(schema.ELSEWHERE, "")


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the timed modules by name: spiking neurons, and other modules without children.

    Modules inside a spiking neuron are part of the neuron.

    >>> list(layers(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))))
    ['0', '1.0']
    """
    candidates = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, SpikingNeuron) or not any(module.children())
    }
    inner = {
        part
        for module in candidates.values()
        if isinstance(module, SpikingNeuron)
        for part in module.modules()
        if part is not module
    }
    return {name: module for name, module in candidates.items() if name and module not in inner}


def layer_seconds(
    model: nn.Module, call: Callable[[], object], repeats: int, device: torch.device
) -> tuple[dict[Place, float], ...]:
    """Measure the seconds per place of several calls.

    The times of one call add up to its duration. Times are exclusive: a layer's time does not
    include the layers that it calls. ``ELSEWHERE`` is the time outside of all layers. The hooks
    make a call slower than normal, but setting up the backward hooks is not counted.

    Args:
        model: model whose layers are timed, on ``device``.
        call: function that runs the model.
        repeats: number of calls.
        device: device of the model. CUDA is synchronised at each change of place.

    Returns:
        Seconds by place, one mapping per call.
    """
    return tuple(_timed(model, call, _Clock(device)) for _ in range(repeats))


def _timed(model: nn.Module, call: Callable[[], object], clock: "_Clock") -> dict[Place, float]:
    recorder = _Recorder(clock)
    handles = [h for name, layer in layers(model).items() for h in recorder.register(name, layer)]
    try:
        clock.start()
        call()
        clock.stop()
    finally:
        for handle in handles:
            handle.remove()
        recorder.forget()
    return dict(clock.seconds)


class _Clock:
    """Clock that adds the elapsed time to the current place.

    Attributes:
        seconds: elapsed seconds by place.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[Place, float] = defaultdict(float)
        self._device = device
        self._places = [ELSEWHERE]
        self._since = 0.0

    def start(self) -> None:
        """Start the clock, at first or after a stop."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Add the time since the last start or stop to the current place."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[self._places[-1]] += now - self._since
        self._since = now

    def enter(self, place: Place) -> None:
        """Make ``place`` the current place."""
        self.stop()
        self._places.append(place)

    def leave(self) -> None:
        """Return to the place that was current before the last :meth:`enter`."""
        self.stop()
        self._places.pop()


@dataclass(frozen=True)
class _Call:
    """Call of a layer that has not returned yet.

    Attributes:
        inputs: autograd nodes of the layer's inputs.
        owned: number of nodes that were assigned to layers before the call.
    """

    inputs: set[Node]
    owned: int


@dataclass(frozen=True)
class _Recorder:
    """Hooks that switch a clock to the layer that runs forward or backward.

    The backward time of a layer is the time of the autograd nodes between its outputs and inputs,
    except for nodes of the layers that it calls. Each node gets hooks of its own. Unlike the
    backward hooks of modules, they do not wrap the outputs, which would break in-place layers, and
    they include gradients of parameters when the input needs no gradient.

    Attributes:
        clock: clock that the hooks switch.
    """

    clock: _Clock
    _calls: list[_Call] = field(default_factory=list)
    _owned: dict[Node, int] = field(default_factory=dict)

    def register(self, name: str, layer: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
        """Add the hooks of one layer."""

        def before(module: nn.Module, args: Any, named: dict[str, Any]) -> None:
            nodes = {t.grad_fn for t in _tensors((args, named)) if t.grad_fn is not None}
            self._calls.append(_Call(nodes, len(self._owned)))
            self.clock.enter(Place(name, "forward"))

        def after(module: nn.Module, args: Any, named: dict[str, Any], output: Any) -> None:
            self.clock.leave()
            self._own(Place(name, "backward"), self._calls.pop(), output)
            self.clock.start()

        return (
            layer.register_forward_pre_hook(before, with_kwargs=True),
            layer.register_forward_hook(after, with_kwargs=True, always_call=True),
        )

    def forget(self) -> None:
        """Drop the references to the autograd graph, whose hooks refer back to this object."""
        self._owned.clear()

    def _own(self, place: Place, call: _Call, output: Any) -> None:
        """Add hooks to the nodes that the call created, except for nodes of layers it called."""
        reached = set(call.inputs)
        waiting = [tensor.grad_fn for tensor in _tensors(output)]
        while waiting:
            node = waiting.pop()
            if node is None or node in reached or self._owned.get(node, call.owned) < call.owned:
                continue
            reached.add(node)
            if node not in self._owned:
                self._owned[node] = len(self._owned)
                node.register_prehook(lambda *_: self.clock.enter(place))
                node.register_hook(lambda *_: self.clock.leave())
            waiting += [parent for parent, _ in node.next_functions]


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
