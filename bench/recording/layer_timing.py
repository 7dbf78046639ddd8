"""How long each layer of a model takes, forward and backward."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from bench.model import SpikingNeuron
from bench.store import schema


class Place(NamedTuple):
    """Where time goes: a layer by its name, and ``forward`` or ``backward``."""

    layer: str
    phase: str


ELSEWHERE = Place(schema.ELSEWHERE, "")


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that are timed, by name: those without children, and spiking neurons as a whole.

    What a backend builds its neuron of is part of the neuron.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, SpikingNeuron) or not any(module.children())
    }
    inner = {
        part
        for module in found.values()
        if isinstance(module, SpikingNeuron)
        for part in module.modules()
        if part is not module
    }
    return {name: module for name, module in found.items() if name and module not in inner}


def layer_seconds(
    model: nn.Module, call: Callable[[], object], repeats: int, device: torch.device
) -> tuple[dict[Place, float], ...]:
    """Seconds by place of each of several calls; those of one call add up to its duration.

    Times are exclusive: what a layer calls within is not its own. ``ELSEWHERE`` is what passes
    outside of every layer. Hooks cost time, so a call takes longer than without; only what it takes
    to set them up is left out.

    Args:
        model: on ``device``.
        call: makes the model work.
        repeats: how often it is called.
        device: on CUDA each change of place waits until the device is done.
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
    """Adds the time that passes to the place that was entered last and not left."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[Place, float] = defaultdict(float)
        self._device = device
        self._places = [ELSEWHERE]
        self._since = 0.0

    def start(self) -> None:
        """Go on after a stop."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Count up to now; what follows is nobody's until the next start."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[self._places[-1]] += now - self._since
        self._since = now

    def enter(self, place: Place) -> None:
        """What follows is the place's."""
        self.stop()
        self._places.append(place)

    def leave(self) -> None:
        """What follows is that of the place from which this one was entered."""
        self.stop()
        self._places.pop()


@dataclass(frozen=True)
class _Call:
    """A layer's call under way: the autograd nodes that it starts from, and how many were owned."""

    inputs: set[Node]
    owned: int


@dataclass(frozen=True)
class _Recorder:
    """Has a clock follow the calls of layers, and the backward passes of what they computed.

    Backward a layer's own are the autograd nodes between its outputs and inputs, except for those
    of a layer within. They are hooked one by one: unlike a module's backward hooks this leaves
    outputs as they are, which a layer that works in place needs, and takes in the parameters'
    gradients where the input needs none.
    """

    clock: _Clock
    _calls: list[_Call] = field(default_factory=list)
    _owned: dict[Node, int] = field(default_factory=dict)

    def register(self, name: str, layer: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
        """Follow a layer."""

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
        """Let go of the graph, which the nodes hold and which holds the hooks."""
        self._owned.clear()

    def _own(self, place: Place, call: _Call, output: Any) -> None:
        """Time the nodes that the call made and that no layer within it owns."""
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
            waiting += [following for following, _ in node.next_functions]


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
