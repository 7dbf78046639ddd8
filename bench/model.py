"""The contract of a model: what the harness calls, and what a model declares about itself.

Models see of the harness only this module, ``bench.backend`` and ``bench.protocol``.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from bench.backend import SpikingBackend, SpikingNeuron
from bench.protocol import Precision, Protocol
from bench.system.class_attributes import FLAG, TEXT, Expected, check_attributes, some_of

Capability = Literal["sample", "sample_latents", "reconstruct", "encode", "decode", "test_loss"]
ImageShape = tuple[int, int, int]
PARTS = ("encoder", "latent_sampler", "decoder", "generator", "discriminator")
"""Names of the parts of a model."""


class ModelOptions(BaseModel):
    """Base class of a model's own options, set under ``[models.<name>]`` in a protocol."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Stage:
    """A stage of a training, in which a model learns one of its parts.

    Attributes:
        name: name of the stage, unique in the model.
        share: share of the epochs, above 0; shares count relative to their sum.
    """

    name: str
    share: float


@dataclass(frozen=True)
class Step:
    """Position of a batch in the run.

    Attributes:
        progress: share of the training that is done, in [0, 1]; 1 in evaluation.
        batches: number of batches in the loader that the batch comes from.
        epoch: number of epochs before this one; 0 in evaluation.
        step: number of training steps before this one, in all epochs; 0 in evaluation.
        stage: name of the stage; the last stage in evaluation, "" without stages.

    On CUDA a model that is ``capturable`` gets ``progress``, ``epoch`` and ``step`` as scalars on
    its device, float64 and int64, which change from step to step.
    """

    progress: float | Tensor
    batches: int
    epoch: int | Tensor = 0
    step: int | Tensor = 0
    stage: str = ""


class GenerativeModel(nn.Module, ABC):
    """A model under test, built from image shape, protocol and backend.

    Images are ``(N, C, H, W)`` in [-1, 1]. Latents are spike trains ``(T, N, D)`` in {0, 1}, or
    real numbers ``(N, D)`` with a prior symmetric about 0, see ``real_latents``.

    Attributes:
        version: version of the model's code, raised by every change that moves its numbers.
        capabilities: methods that the model implements; a metric that needs another one gets
            ``not_applicable`` rows.
        spiking: True if the model is built from a spiking backend; else its backend is None.
        real_latents: True if the latents of a spiking model are real numbers; other models have no
            other latents.
        class_conditional: True if the model needs classes. It is then built with the keyword
            argument ``classes``, their number, and every method that takes or returns images, in
            training and evaluation, gets ``labels``, int64 ``(N,)`` in 0..classes - 1.
        precisions: values of the protocol's ``precision`` that the model supports; under any other
            its cells are skipped. The harness switches ``tf32`` on; ``bfloat16`` requires computing
            inside :meth:`autocast`.
        capturable: True if PyTorch can capture ``training_step``, ``test_loss``, ``reconstruct``
            and ``sample`` in CUDA graphs: they neither wait for the device nor copy from the host,
            do the same at every call, and change nothing but tensors in place.
        Options: class of the model's own options, which are validated before anything runs.
    """

    version: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    spiking: ClassVar[bool] = False
    real_latents: ClassVar[bool] = False
    class_conditional: ClassVar[bool] = False
    precisions: ClassVar[frozenset[Precision]] = frozenset({"float32", "tf32"})
    capturable: ClassVar[bool] = False
    Options: ClassVar[type[ModelOptions]] = ModelOptions

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.protocol = protocol
        self.backend = backend

    @classmethod
    def unsupported(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return why the model cannot be built for images ``(C, H, W)``; None if it can."""
        return None

    @classmethod
    def unpublished(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return the name of the network for images ``(C, H, W)`` if no paper describes it.

        The rows have it in ``model_version``, as in ``1+unpublished.ours_32``, and the report warns
        of it.
        """
        return None

    @classmethod
    def stages(cls, protocol: Protocol) -> tuple[Stage, ...]:
        """Return the stages of the training, in order; none for a training in one piece.

        Epochs are scored, selected and sampled from in the last stage only. A protocol with fewer
        epochs than stages is skipped.
        """
        return ()

    def begin_stage(self, stage: str, images: Tensor) -> None:
        """Prepare for a stage, such as by freezing the parts that the stage before it has trained.

        It is called before the first step of each stage, and again where a training resumes within
        a stage, after parameters, buffers and training state are restored. So it may derive from
        them, but must not change them. Its random draws do not move the draws of the training.

        Args:
            stage: name of the stage.
            images: training images ``(N, C, H, W)``, uint8, on the model's device.
        """

    @abstractmethod
    def training_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor | float]:
        """Train on one batch ``(N, C, H, W)`` and return its losses by name.

        The model owns its optimisers. Every loss is recorded and guarded against NaN; progress
        shows ``"loss"`` if there is one, else all. A step leaves out a loss that it does not
        compute. A tensor without dimensions counts as a number; on a GPU it lets training go on
        without waiting for the loss.
        """

    def training_state(self) -> dict[str, Any]:
        """Return what training changes besides parameters and buffers, for a checkpoint.

        The default is the ``state_dict`` of each attribute that has one and is no module, such as
        an optimiser or a scheduler, also in lists, tuples and dicts of them. A model that keeps
        more, such as a counter, extends it together with :meth:`load_training_state`. Values are
        tensors, numbers, strings, lists, tuples and dicts.
        """
        own = vars(self).keys() - _OF_EVERY_MODULE
        states = {name: _state(vars(self)[name]) for name in sorted(own)}
        return {name: state for name, state in states.items() if state is not None}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`training_state` in a model that was built equally."""
        for name, content in state.items():
            _load_state(getattr(self, name), content)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return ``n`` generated images ``(n, C, H, W)`` (capability ``sample``)."""
        raise NotImplementedError

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Return latents ``(T, n, D)`` or ``(n, D)`` of the prior (``sample_latents``)."""
        raise NotImplementedError

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return reconstructions of images, both ``(N, C, H, W)`` (``reconstruct``)."""
        raise NotImplementedError

    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return latents of images ``(N, C, H, W)`` (capability ``encode``)."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` of latents (capability ``decode``)."""
        raise NotImplementedError

    def decode_prefixes(self, latents: Tensor, **labels: Tensor) -> Iterator[Tensor]:
        """Yield :meth:`decode` of the first t = 1..T time steps of spike trains ``(T, N, D)``.

        Called in evaluation mode. Override it if one pass can do better than T decodings.
        """
        for t in range(1, len(latents) + 1):
            yield self.decode(latents[:t], **labels)

    def test_loss(self, images: Tensor, step: Step, generator: torch.Generator) -> Tensor:
        """Return the objective on a batch, a scalar (capability ``test_loss``).

        Args:
            images: batch ``(N, C, H, W)`` in [-1, 1].
            step: position of the batch.
            generator: source of the model's random draws.
        """
        raise NotImplementedError

    def spiking_layers(self) -> dict[str, nn.Module]:
        """Return the modules whose output is a spike train ``(T, N, ...)``, by readable name."""
        return {
            name.removesuffix(".neuron"): module
            for name, module in self.named_modules()
            if isinstance(module, SpikingNeuron)
        }

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each part of the model, by the names in ``PARTS``.

        Operations are counted for each part, including its submodules; modules of no part count
        for the whole model only. Parts must not share a module.
        """
        return {}

    def sampling_modules(self) -> list[nn.Module]:
        """Return the modules that :meth:`sample` runs; the whole model if not overridden.

        Parameters and footprint are counted for the model and for these, without what only
        training or reconstruction needs, such as a discriminator or an encoder.
        """
        return [self]

    def sampling_network(self) -> nn.Module | None:
        """Return the module that :meth:`sample` evaluates again and again, such as a denoiser.

        Its evaluations per image are counted. None for a model that samples in one pass.
        """
        return None

    def activation_layers(self) -> dict[str, nn.Module]:
        """Return the modules whose output counts as activations, by name.

        These are spiking layers and activation functions.
        """
        functions = {
            name: module
            for name, module in self.named_modules()
            if type(module).__module__ == nn.modules.activation.__name__
            and not isinstance(module, nn.MultiheadAttention)
        }
        return {**functions, **self.spiking_layers()}

    @property
    def last_stage(self) -> str:
        """Name of the last stage of the training; "" for a training in one piece."""
        stages = self.stages(self.protocol)
        return stages[-1].name if stages else ""

    @property
    def spiking_backend(self) -> SpikingBackend:
        """The backend of a spiking model.

        Raises:
            ValueError: the model was built without one.
        """
        if self.backend is None:
            raise ValueError(f"{type(self).__name__} needs a spiking backend")
        return self.backend

    @property
    def spiking_latents(self) -> bool:
        """True if latents are spike trains ``(T, N, D)``, False if they are real ``(N, D)``."""
        return self.spiking and not self.real_latents

    def autocast(self) -> torch.autocast:
        """Return the context in which synapses compute in the protocol's precision.

        Use it around forward passes only; the backward pass follows by itself. Images and losses
        stay in float32.
        """
        lower = self.protocol.precision == "bfloat16"
        # The cache would pass weights that were cast without gradient to a pass with gradient.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=lower, cache_enabled=False)

    @property
    def device(self) -> torch.device:
        """Device of the parameters and buffers.

        Raises:
            TypeError: there are none.
        """
        for tensor in itertools.chain(self.parameters(), self.buffers()):
            return tensor.device
        raise TypeError(
            f"{type(self).__name__} has neither parameters nor buffers, which tell its device: "
            "register one, for example with self.register_buffer('at', torch.zeros(()))"
        )


def begin_last_stage(model: GenerativeModel, images: Tensor) -> str:
    """Have a model begin the last stage of its training, and return its name.

    Args:
        model: model on its device; one that is trained in one piece is left as it is.
        images: training images ``(N, C, H, W)``, uint8, on that device.
    """
    stage = model.last_stage
    if stage:
        model.begin_stage(stage, images)
    return stage


_OF_EVERY_MODULE = vars(nn.Module()).keys()


def _state(value: object) -> dict[Any, Any] | None:
    """Return the state of an object, or of the objects in a container by their place; else None."""
    if hasattr(value, "load_state_dict") and hasattr(value, "state_dict"):
        return None if isinstance(value, type) else value.state_dict()
    states = {place: _state(part) for place, part in _parts(value)}
    return {place: state for place, state in states.items() if state is not None} or None


def _load_state(value: Any, state: Mapping[Any, Any]) -> None:
    """Restore the result of :func:`_state`."""
    if hasattr(value, "load_state_dict"):
        value.load_state_dict(state)
        return
    parts = dict(_parts(value))
    for place, content in state.items():
        _load_state(parts[place], content)


def _parts(value: object) -> Iterable[tuple[Any, object]]:
    """Return the parts of a container with their places; nothing of another object."""
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()


_ATTRIBUTES = {
    "version": TEXT,
    "capabilities": some_of(get_args(Capability)),
    "spiking": FLAG,
    "real_latents": FLAG,
    "class_conditional": FLAG,
    "precisions": some_of(get_args(Precision)),
    "capturable": FLAG,
    "Options": Expected(
        "a subclass of ModelOptions",
        lambda value: isinstance(value, type) and issubclass(value, ModelOptions),
    ),
}


def check_class(name: str, model: type[GenerativeModel]) -> None:
    """Check the attributes of a model's class.

    Args:
        name: registered name of the model.
        model: its class.

    Raises:
        TypeError: an attribute is missing or wrong; the message names it.
    """
    check_attributes(model, _ATTRIBUTES)
