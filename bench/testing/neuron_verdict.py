"""The verdict on a backend's neurons: exact, within rounding, or another neuron."""

import logging
from collections.abc import Iterator

import torch

from bench.backend import (
    NeuronSpec,
    SpikingBackend,
    SpikingNeuron,
    UnsupportedNeuronError,
    protocol_neuron,
)
from bench.errors import one_line
from bench.model import GenerativeModel
from bench.store.schema import ANOTHER_NEURON, NeuronVerdict
from bench.system.devices import tf32
from bench.system.random_state import preserved_randomness
from bench.testing.deviations import Finding, worst
from bench.testing.layer_probes import LAYERS, layer_findings, readout_finding, sequence_finding
from bench.testing.neuron_probes import neuron_findings

_LOG = logging.getLogger(__name__)
_known: dict[tuple[type[SpikingBackend], NeuronSpec, str], NeuronVerdict | None] = {}


def model_verdict(model: GenerativeModel) -> NeuronVerdict | None:
    """Return the verdict on the backend of a model, for the neurons that the model uses.

    These are the neuron of the protocol and the specifications of all neurons in the model. Each is
    computed once per process, backend and kind of device, which takes a few tenths of a second.

    Returns:
        The gravest verdict; None for a model without a backend.
    """
    if model.backend is None:
        return None
    specs = {neuron.spec for neuron in model.modules() if isinstance(neuron, SpikingNeuron)}
    specs.add(protocol_neuron(model.protocol))
    verdicts = [_verdict(model.backend, spec, model.device) for spec in specs]
    known = [Finding(verdict) for verdict in verdicts if verdict is not None]
    return worst(known) if known else None


def findings(backend: SpikingBackend, spec: NeuronSpec, device: torch.device) -> list[Finding]:
    """Compare the neurons and all layers of a backend with their equations.

    Args:
        backend: the backend.
        spec: the neuron to ask for.
        device: device to compute on.

    Raises:
        UnsupportedNeuronError: the backend cannot build the neuron.
    """
    with preserved_randomness(), tf32(False):
        return [
            *neuron_findings(backend, spec, device),
            *_of_layers(backend, spec, device),
            sequence_finding(backend, spec, device),
            readout_finding(backend, device),
        ]


def _of_layers(
    backend: SpikingBackend, spec: NeuronSpec, device: torch.device
) -> Iterator[Finding]:
    for name in LAYERS:
        yield from layer_findings(backend, name, spec, device)


def _verdict(
    backend: SpikingBackend, spec: NeuronSpec, device: torch.device
) -> NeuronVerdict | None:
    """Return the verdict for one neuron; None if the backend does not build it."""
    key = type(backend), spec, device.type
    if key not in _known:
        try:
            _known[key] = worst(findings(backend, spec, device))
        except UnsupportedNeuronError:
            _known[key] = None
        except Exception as error:
            _LOG.warning("the backend fails for %s: %s", spec, one_line(error))
            _known[key] = ANOTHER_NEURON
    return _known[key]
