"""Checks of a backend: spikes and gradients against the equations, for many neurons and layers."""

from collections.abc import Iterator
from functools import partial

import torch

from bench import registry
from bench.backend import (
    Arctangent,
    NeuronSpec,
    Rectangle,
    SpikingBackend,
    SpikingNeuron,
    Triangle,
    UnsupportedNeuronError,
    protocol_neuron,
)
from bench.protocol import load_protocol
from bench.store.schema import ANOTHER_NEURON, NEURON_VERDICTS, NeuronVerdict
from bench.system.devices import resolve_device, tf32
from bench.testing.checks import Check, CheckResult, NotApplicableError, require, results
from bench.testing.deviations import Finding, worst
from bench.testing.layer_probes import LAYERS, layer_findings, readout_finding, sequence_finding
from bench.testing.neuron_probes import neuron_findings

SPECS = {
    "of the smoke protocol": protocol_neuron(load_protocol("smoke")),
    "with a window around the threshold": NeuronSpec(0.25, 0.2, Rectangle(0.2, 0.2)),
    "with another window and a slow decay": NeuronSpec(0.9, 0.35, Rectangle(-0.13, 0.71)),
    "with a triangle": NeuronSpec(0.5, 1.0, Triangle(0.7)),
    "with an arctangent": NeuronSpec(0.25, 0.2, Arctangent(2.0)),
    "without gradient through the reset": NeuronSpec(
        0.25, 0.2, Rectangle(0.0, 1.0), reset_gradient=False
    ),
    "that fires at the threshold": NeuronSpec(
        0.25, 0.2, Rectangle(0.0, 1.0), fires_at_threshold=True
    ),
    "with an arctangent, detached, at the threshold": NeuronSpec(
        0.5, 0.25, Arctangent(3.0), reset_gradient=False, fires_at_threshold=True
    ),
    "without leak": NeuronSpec(1.0, 1.0, Rectangle(1.0, 1.0)),
    "without leak, with a detached arctangent": NeuronSpec(
        1.0, 1.0, Arctangent(2.0), reset_gradient=False, fires_at_threshold=True
    ),
}
"""Neurons that a backend is asked for, by what is special about them."""
LAYER_SPEC = SPECS["of the smoke protocol"]
LAYER_SPECS = {
    "": LAYER_SPEC,
    " with a detached arctangent": NeuronSpec(0.5, 0.2, Arctangent(2.0), reset_gradient=False),
    " without leak": NeuronSpec(1.0, 1.0, Arctangent(2.0)),
}
"""Neurons of the layers that a backend is asked for, by what is special about them."""
NEURON, LAYER = "neuron ", "layer "


def check_backend(backend: str | type[SpikingBackend], device: str = "auto") -> list[CheckResult]:
    """Check a backend.

    Args:
        backend: registered name, or class.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        How each check ended. The message of a passed one says whether spikes, potentials and
        gradients are exact or differ within rounding.
    """
    return results(backend_checks(backend, device))


def backend_checks(backend: str | type[SpikingBackend], device: str = "auto") -> list[Check]:
    """Return the checks of a backend, to run one by one; arguments as in :func:`check_backend`."""
    backend_class = registry.backends.load(backend) if isinstance(backend, str) else backend
    place = resolve_device(device)
    built = backend_class()
    checks = [
        Check("names what computes the neurons", partial(_names_its_code, built, place)),
        Check("a neuron has no weights", partial(_has_no_weights, built)),
    ]
    checks += [
        Check(f"{NEURON}{words}", partial(_neuron, built, spec, place))
        for words, spec in SPECS.items()
    ]
    checks += [
        Check(f"{LAYER}{name}{words}", partial(_layer, built, name, spec, place))
        for words, spec in LAYER_SPECS.items()
        for name in LAYERS
    ]
    return [
        *checks,
        Check("a sequence of layers", partial(_sequence, built, place)),
        Check("the readout", partial(_readout, built, place)),
    ]


def verdict(checked: list[CheckResult]) -> NeuronVerdict:
    """Return the verdict that the results of :func:`check_backend` amount to."""
    remarks = [Finding(_VERDICTS.get(each.message, NEURON_VERDICTS[0])) for each in checked]
    failed = any(each.outcome == "failed" for each in checked)
    return ANOTHER_NEURON if failed else worst(remarks)


_REMARKS: dict[NeuronVerdict, str] = {
    "exact": "exact",
    "within_rounding": "within rounding",
    "another_neuron": "another neuron",
}
_VERDICTS = {words: name for name, words in _REMARKS.items()}


def _names_its_code(backend: SpikingBackend, device: torch.device) -> str:
    try:
        name = backend.implementation(device)
    except RuntimeError as error:
        raise NotApplicableError(str(error)) from error
    require(
        isinstance(name, str) and name,
        f"implementation returned {name!r}; return the name and version of the code",
    )
    return name


def _has_no_weights(backend: SpikingBackend) -> None:
    neuron = _built(backend, LAYER_SPEC)
    require(
        isinstance(neuron, SpikingNeuron),
        f"neuron returned a {type(neuron).__name__}; return a SpikingNeuron",
    )
    require(
        not neuron.state_dict(),
        f"state_dict of the neuron holds {', '.join(neuron.state_dict())}; keep constants out of "
        "parameters and buffers, so that weights can be carried from backend to backend",
    )


def _neuron(backend: SpikingBackend, spec: NeuronSpec, device: torch.device) -> str:
    neuron = _built(backend, spec)
    require(neuron.spec == spec, f"the neuron has the spec {neuron.spec}, asked for {spec}")
    return _remark(neuron_findings(backend, spec, device))


def _layer(backend: SpikingBackend, name: str, spec: NeuronSpec, device: torch.device) -> str:
    _built(backend, spec)
    return _remark(layer_findings(backend, name, spec, device))


def _sequence(backend: SpikingBackend, device: torch.device) -> str:
    _built(backend, LAYER_SPEC)
    return _remark(iter([sequence_finding(backend, LAYER_SPEC, device)]))


def _readout(backend: SpikingBackend, device: torch.device) -> str:
    return _remark(iter([readout_finding(backend, device)]))


def _built(backend: SpikingBackend, spec: NeuronSpec) -> SpikingNeuron:
    try:
        return backend.neuron(spec)
    except UnsupportedNeuronError as error:
        raise NotApplicableError(f"the backend refuses it: {error}") from error


def _remark(findings: Iterator[Finding]) -> str:
    """Return the verdict in words.

    Raises:
        CheckFailedError: the neuron is another one; says where it differs.
    """
    with tf32(False):
        found = list(findings)
    for finding in found:
        require(finding.verdict != ANOTHER_NEURON, f"another neuron: {finding.message}")
    return _REMARKS[worst(found)]
