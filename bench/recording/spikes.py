"""Recording of the activity of a model's layers while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bench.backend import SpikingNeuron
from bench.model import GenerativeModel
from bench.recording.counting import counter, memory_order, nonzero, total, unordered
from bench.recording.layer_activity import LayerActivity, NeuronCounts, SpikeTrains
from bench.recording.synaptic_operations import SYNAPTIC_LAYERS, OperationCounter


@contextmanager
def recording(model: GenerativeModel, images: int) -> Iterator[dict[str, LayerActivity]]:
    """Record the activity of a model's layers within the context; its results do not change.

    Consecutive calls of a spiking layer with one time step each are one sequence. Any other call is
    a sequence of its own.

    Args:
        model: model whose spiking layers, activation layers and synaptic layers are recorded.
        images: number of images N that the model computes in the context.

    Yields:
        Activity by layer name, filled as the layers run. Layers that do not run are absent.

    Raises:
        ValueError: if the output of a spiking layer is not ``(T, N, ...)``, or not 0 or 1.
    """
    recorder = _Recorder(model, images)
    handles = recorder.register()
    try:
        yield recorder.layers
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    """Recorder of the layers of one model, for one batch of images.

    Attributes:
        model: the recorded model.
        images: number of images N in the batch.
        layers: activity by layer name.
    """

    def __init__(self, model: GenerativeModel, images: int) -> None:
        self.model = model
        self.images = images
        self.layers: dict[str, LayerActivity] = {}
        self._parts = {
            layer: part
            for part, modules in model.parts().items()
            for module in modules
            for layer in module.modules()
        }
        self._counters: dict[str, OperationCounter] = {}
        self._single_steps: dict[str, int] = {}

    def register(self) -> list[RemovableHandle]:
        """Add the hooks of all recorded layers, and return their handles."""
        spiking = self.model.spiking_layers()
        handles = [self._on_output(layer, name, self._spikes) for name, layer in spiking.items()]
        for name, layer in self.model.activation_layers().items():
            if name not in spiking:
                handles.append(self._on_output(layer, name, self._activations))
        for name, layer in self.model.named_modules():
            if isinstance(layer, SYNAPTIC_LAYERS):
                self._counters[name] = OperationCounter(layer, self.images)
                handles.append(self._on_call(layer, name))
        return handles

    def _on_output(self, layer: nn.Module, name: str, record: Any) -> RemovableHandle:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            record(name, self._activity(name, layer), module, output.detach())

        return layer.register_forward_hook(hook)

    def _on_call(self, layer: nn.Module, name: str) -> RemovableHandle:
        def hook(module: nn.Module, args: Any, named: dict[str, Any], output: Tensor) -> None:
            counter = self._counters[name]
            counter.count((args[0] if args else named["input"]).detach(), output.shape)
            self._activity(name, layer).operations = counter.operations

        return layer.register_forward_hook(hook, with_kwargs=True)

    def _activity(self, name: str, layer: nn.Module) -> LayerActivity:
        return self.layers.setdefault(name, LayerActivity(self._parts.get(layer)))

    def _activations(
        self, name: str, activity: LayerActivity, layer: nn.Module, output: Tensor
    ) -> None:
        activity.nonzero += int(torch.count_nonzero(output))
        activity.elements += output.numel()

    def _spikes(self, name: str, activity: LayerActivity, layer: nn.Module, output: Tensor) -> None:
        if output.ndim < 2:
            raise ValueError(
                f"Spiking layer {name} returns the shape {tuple(output.shape)}: expected "
                "(T, N, ...), time first."
            )
        if activity.spikes is None:
            activity.spikes = SpikeTrains(isinstance(layer, SpikingNeuron))
            zeros = torch.zeros(self.images, dtype=torch.float64, device=output.device)
            activity.spikes_by_image = zeros
        trains, by_image = _count_spikes(name, output, self._steps_before(name, len(output)))
        activity.spikes.add(trains)
        activity.nonzero += int(trains.by_time_step.sum().item())
        activity.elements += output.numel()
        if activity.spikes_by_image is not None:
            whole = len(by_image) == self.images
            activity.spikes_by_image = activity.spikes_by_image + by_image if whole else None

    def _steps_before(self, name: str, time_steps: int) -> int:
        """Return the number of time steps that the layer's sequence had before this call."""
        before = self._single_steps.get(name, 0) if time_steps == 1 else 0
        self._single_steps[name] = before + 1 if time_steps == 1 else 0
        return before


def _count_spikes(name: str, output: Tensor, steps_before: int) -> tuple[SpikeTrains, Tensor]:
    """Count the spikes of one call, one time step at a time to save memory.

    Args:
        name: name of the layer, for the message.
        output: spikes ``(T, N, ...)``.
        steps_before: number of time steps that the sequence had before this call.

    Returns:
        The spikes summed over images, and the spikes per image, float64 ``(N,)``.

    Raises:
        ValueError: if a value is neither 0 nor 1.
    """
    time_steps, images = output.shape[:2]
    shaped = output if output.ndim > 2 else output[..., None]
    axes = memory_order(shaped, 2)
    trains = shaped.permute(axes)
    by_place = counter(trains.shape[1:], time_steps, output.device)
    by_time_step, sums = [], []
    for spikes in trains:
        fired = nonzero(spikes)
        by_time_step.append(torch.count_nonzero(fired))
        sums.append(by_time_step[-1] if fired is spikes else total(spikes))
        by_place += fired
    by_image = by_place.flatten(1).sum(1, dtype=torch.float64)
    by_neuron = unordered(by_place.sum(0, dtype=torch.float64)[None, None], axes).flatten()
    facts = [*by_time_step, *sums, *(() if output.dtype == torch.uint8 else output.aminmax())]
    counted = torch.stack([fact.double() for fact in facts]).cpu()
    steps, totals, extremes = counted.tensor_split((time_steps, 2 * time_steps))
    # Values in [0, 1] whose sum is the number of those that are not 0 are all 0 or 1.
    if not (torch.equal(steps, totals) and ((extremes >= 0) & (extremes <= 1)).all()):
        raise ValueError(
            f"Spiking layer {name} returns values in {output.min().item():g}.."
            f"{output.max().item():g} that are neither 0 nor 1: expected spikes in {{0, 1}}"
        )
    chances = torch.full_like(steps, output[0].numel())
    before = (steps_before, 0)
    neurons = {output.shape[2:]: NeuronCounts(by_neuron, time_steps * images)}
    trains_of_call = SpikeTrains(False, F.pad(steps, before), F.pad(chances, before), neurons)
    return trains_of_call, by_image
