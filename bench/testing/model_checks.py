"""Checks of a model: declarations, outputs, random draws and state in evaluation mode."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from bench.backend import SpikingBackend
from bench.evaluation.passes import check_images, check_latents
from bench.model import PARTS, Capability, GenerativeModel, Step, check_class
from bench.recording.spikes import recording
from bench.testing.checks import Check, CheckResult, NotApplicableError, require, results
from bench.testing.draws import draws_from
from bench.testing.model_subject import ModelSubject, model_subject
from bench.testing.training_checks import TRAINING_CHECKS

IMAGES = 6
TOLERANCE = 1e-4
"""Largest difference of values that is taken for rounding."""


def check_model(
    model: str | type[GenerativeModel],
    *,
    backend: str | type[SpikingBackend] | None = None,
    settings: Iterable[str] = (),
    device: str = "auto",
) -> list[CheckResult]:
    """Check a model on random images, with the protocol ``smoke`` at a small size.

    Args:
        model: registered name, or class.
        backend: backend of a spiking model, registered name or class; None for the plain equations.
        settings: ``key=value`` settings of the protocol.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        How each check ended.

    Raises:
        BenchError: an unknown name or setting, or a model that supports no shape of images.
    """
    return results(model_checks(model, backend=backend, settings=settings, device=device))


def model_checks(
    model: str | type[GenerativeModel],
    *,
    backend: str | type[SpikingBackend] | None = None,
    settings: Iterable[str] = (),
    device: str = "auto",
) -> list[Check]:
    """Return the checks of a model, to run one by one.

    Args:
        model: registered name, or class.
        backend: backend of a spiking model, as in :func:`check_model`.
        settings: ``key=value`` settings of the protocol.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """
    subject = model_subject(model, backend, settings, device)
    return [Check(name, partial(function, subject)) for name, function in _CHECKS.items()]


def _declares_what_it_has(subject: ModelSubject) -> None:
    model = subject.model_class
    check_class(model.__name__, model)
    for name in get_args(Capability):
        own = getattr(model, name) is not getattr(GenerativeModel, name)
        require(
            own or name not in model.capabilities,
            f"capabilities has {name!r}, but the class has no method {name}: write it, or leave it "
            "out of capabilities",
        )
        require(
            name in model.capabilities or not own,
            f"the class has the method {name}, which capabilities leaves out: add {name!r}, or the "
            "metrics that need it have no value",
        )


def _has_known_parts(subject: ModelSubject) -> None:
    model = subject.built()
    parts, own, owner = model.parts(), set(model.modules()), dict[torch.nn.Module, str]()
    unknown, known = ", ".join(sorted(parts.keys() - set(PARTS))), ", ".join(PARTS)
    require(not unknown, f"parts has the names {unknown}; use {known}")
    for name, modules in parts.items():
        for module in modules:
            require(
                module in own,
                f"parts names a {type(module).__name__} under {name} that is no submodule of the "
                "model: register it as an attribute",
            )
            for inner in module.modules():
                require(
                    owner.setdefault(inner, name) == name,
                    f"the parts {owner[inner]} and {name} share a {type(inner).__name__}; each "
                    "module belongs to one part",
                )


def _gives_images_and_latents(subject: ModelSubject) -> None:
    model = subject.evaluated()
    shapes = {"sample": subject.image_shape, "reconstruct": subject.image_shape}
    shapes["decode"] = subject.image_shape
    for n in (IMAGES, 1):
        for name, values in _outputs(model, subject, n):
            if name in shapes:
                check_images(values, (n, *shapes[name]), name)
            elif name != "test_loss":
                check_latents(values, n, model.spiking_latents, name)
            require(
                isinstance(values, Tensor) and values.isfinite().all(),
                f"{name} gave values that are NaN or infinite; expected finite values",
            )
            require(
                values.device == model.device,
                f"{name} gave a tensor on {values.device}; expected {model.device}, where the "
                "model is",
            )


def _samples_from_what_it_says(subject: ModelSubject) -> None:
    model = subject.evaluated()
    if "sample" not in model.capabilities:
        raise NotApplicableError("the model does not sample")
    declared = {inner for module in model.sampling_modules() for inner in module.modules()}
    ran: set[str] = set()

    def keep(name: str, *_: object) -> None:
        ran.add(name)

    others = {
        name: module
        for name, module in model.named_modules()
        if module not in declared and next(module.parameters(recurse=False), None) is not None
    }
    handles = [
        module.register_forward_pre_hook(partial(keep, name)) for name, module in others.items()
    ]
    try:
        _output(model, subject, "sample", IMAGES)
    finally:
        for handle in handles:
            handle.remove()
    require(
        not ran,
        f"sample runs {', '.join(sorted(ran))}, which sampling_modules leaves out: add what holds "
        "it, or the sizes of what sampling needs are wrong",
    )


def _spikes_are_binary(subject: ModelSubject) -> None:
    model = subject.evaluated()
    if not model.spiking:
        raise NotApplicableError("the model is not spiking")
    require(model.spiking_layers(), "spiking_layers is empty: return the layers that spike")
    with torch.no_grad(), recording(model, IMAGES) as layers:
        for _ in _outputs(model, subject, IMAGES):
            pass
    silent = [name for name, layer in layers.items() if layer.spikes and not layer.elements]
    require(not silent, f"the layers {', '.join(silent)} gave nothing")


def _draws_from_its_generator(subject: ModelSubject) -> None:
    model = subject.evaluated()
    for name in sorted(model.capabilities):
        generator = subject.generator()
        with draws_from(generator, name):
            _output(model, subject, name, IMAGES, generator=generator)


def _repeats_itself(subject: ModelSubject) -> None:
    model, twin = subject.evaluated(), subject.evaluated()
    for name in sorted(model.capabilities):
        require(
            _close(_output(model, subject, name, IMAGES), _output(twin, subject, name, IMAGES), 0),
            f"two models with the same weights and seed differ in {name}: draw from generator "
            "alone, and register all constants as buffers or make them from the protocol",
        )


def _keeps_no_state(subject: ModelSubject) -> None:
    model = subject.evaluated()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = dict(_outputs(model, subject, IMAGES))
    for name in sorted(model.capabilities):
        _output(model, subject, name, 3, seed=5)
        for again, values in _outputs(model, subject, IMAGES):
            require(
                _close(values, first[again], 0),
                f"{again} depends on earlier calls (here on {name} of 3 images): start each call "
                "from rest, and keep nothing from call to call",
            )
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    require(
        not changed,
        f"calls in evaluation mode change {', '.join(changed)}: change buffers only while "
        "self.training is True",
    )


def _treats_images_alone(subject: ModelSubject) -> None:
    model = subject.evaluated()
    shown = [name for name in ("reconstruct", "encode") if name in model.capabilities]
    if not shown:
        raise NotApplicableError("the model neither reconstructs nor encodes")
    images = subject.images(IMAGES)
    mixed = images.clone()
    mixed[1:] = subject.images(IMAGES, seed=7)[1:].flip(0)
    labels = subject.labels(IMAGES)
    for name in shown:
        method = getattr(model, name)
        alone, among = (method(each, subject.generator(), **labels) for each in (images, mixed))
        axis = alone.ndim - 2 if name == "encode" else 0
        require(
            _close(alone.select(axis, 0), among.select(axis, 0), TOLERANCE),
            f"{name} of an image depends on the other images of its batch: in evaluation mode "
            "use running statistics (model.eval() reaches registered modules only)",
        )


def _labels_matter(subject: ModelSubject) -> None:
    model = subject.evaluated()
    if not model.class_conditional or "sample" not in model.capabilities:
        raise NotApplicableError("the model does not sample by class")
    labels = torch.zeros(IMAGES, dtype=torch.int64, device=model.device)
    with torch.no_grad():
        one, other = (
            model.sample(IMAGES, subject.generator(), **{"labels": each})
            for each in (labels, labels + 1)
        )
    require(
        not torch.equal(one, other),
        "samples of class 0 and of class 1 are the same: use labels in sample, or leave out "
        "class_conditional",
    )


def _decodes_alone_and_by_steps(subject: ModelSubject) -> None:
    model = subject.evaluated()
    if "decode" not in model.capabilities:
        raise NotApplicableError("the model cannot decode")
    latents, labels = _latents(model, subject, IMAGES), subject.labels(IMAGES)
    images = model.decode(latents, **labels)
    order = torch.arange(IMAGES - 1, -1, -1, device=latents.device)
    turned = latents.index_select(latents.ndim - 2, order)
    of_turned = {name: values[order] for name, values in labels.items()}
    require(
        _close(model.decode(turned, **of_turned), images[order], TOLERANCE),
        "decode of a latent depends on its place in the batch",
    )
    if model.spiking_latents:
        *_, last = model.decode_prefixes(latents, **labels)
        require(
            _close(last, images, TOLERANCE),
            "the last images of decode_prefixes differ from decode of all time steps",
        )


def _outputs(model: GenerativeModel, subject: ModelSubject, n: int) -> Iterator[tuple[str, Tensor]]:
    for name in sorted(model.capabilities):
        yield name, _output(model, subject, name, n)


@torch.no_grad()
def _output(
    model: GenerativeModel,
    subject: ModelSubject,
    name: str,
    n: int,
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Call a method for n images, with inputs of a seed, and draws of one if no generator."""
    generator, labels = generator or subject.generator(seed + 1), subject.labels(n, seed)
    match name:
        case "sample_latents":
            values = model.sample_latents(n, generator)
        case "sample":
            values = model.sample(n, generator, **labels)
        case "decode":
            values = model.decode(_latents(model, subject, n), **labels)
        case "test_loss":
            values = model.test_loss(
                subject.images(n, seed), Step(1.0, 1, stage=model.last_stage), generator, **labels
            )
        case _:
            values = getattr(model, name)(subject.images(n, seed), generator, **labels)
    return values


@torch.no_grad()
def _latents(model: GenerativeModel, subject: ModelSubject, n: int) -> Tensor:
    """Return latents to decode, from whichever method the model has."""
    if "sample_latents" in model.capabilities:
        return model.sample_latents(n, subject.generator())
    if "encode" in model.capabilities:
        return model.encode(subject.images(n), subject.generator(), **subject.labels(n))
    raise NotApplicableError("the model decodes, but gives no latents to decode")


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    same_shape = one.shape == other.shape
    return same_shape and torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True)


_CHECKS: dict[str, Callable[[ModelSubject], str | None]] = {
    "declares the methods that it has": _declares_what_it_has,
    "parts are known and share no module": _has_known_parts,
    "gives finite images in [-1, 1] and latents, of the right shape": _gives_images_and_latents,
    "sampling_modules has all that sample runs": _samples_from_what_it_says,
    "spikes are 0 or 1": _spikes_are_binary,
    "draws from its generator, on its device": _draws_from_its_generator,
    "the same weights and seed give the same outputs": _repeats_itself,
    "keeps no state from call to call": _keeps_no_state,
    "treats each image of a batch alone": _treats_images_alone,
    "decodes each latent alone, and by time steps": _decodes_alone_and_by_steps,
    "samples follow their labels": _labels_matter,
    **TRAINING_CHECKS,
}
