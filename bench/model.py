"""The contract that a model fulfils, and the one that a spiking backend fulfils.

This is all that a model, built in or anyone's own, sees of the harness.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from bench.protocol import Precision, Protocol, SurrogateWindow

__all__ = [
    "Capability",
    "CarriedState",
    "GenerativeModel",
    "ImageShape",
    "ModelOptions",
    "Precision",
    "Protocol",
    "SpikingNeuron",
    "Step",
    "SurrogateWindow",
    "carrying_state",
]

Capability = Literal["sample", "sample_latents", "reconstruct", "encode", "decode", "test_loss"]
ImageShape = tuple[int, int, int]


class ModelOptions(BaseModel):
    """Base of a model's own options, given under ``[models.<name>]`` in a protocol."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Step:
    """Where in the run a batch stands.

    Attributes:
        progress: share of the training done, in [0, 1].
        batches: number of batches in the loader that the batch comes from.
    """

    progress: float
    batches: int


@dataclass
class CarriedState:
    """What a layer of neurons keeps from call to call within :func:`carrying_state`.

    Attributes:
        membrane: potential after the last call, ``(N, ...)``; None before the first.
        kept: whatever a backend computes once for the whole sequence, by names of its own.
    """

    membrane: Tensor | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    def membrane_of(self, size: torch.Size) -> Tensor | None:
        """The potential that neurons ``(N, ...)`` go on from.

        Raises:
            ValueError: it is that of others.
        """
        if self.membrane is not None and self.membrane.shape != size:
            raise ValueError(
                f"neurons of shape {tuple(size)} cannot go on from a state of shape "
                f"{tuple(self.membrane.shape)}: a sequence keeps its shape"
            )
        return self.membrane


class SpikingNeuron(nn.Module, ABC):
    """A layer of leaky integrate-and-fire neurons: what a spiking backend provides.

    ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + x_t``, ``o_t = [u_t > threshold]``, ``u_0 = 0``, with
    gradients through the reset and the surrogate ``(1 / w) * [|u_t - c| < w / 2]`` for the step
    (arXiv:2110.00375).

    It computes in float32 at least, whatever the precision of the currents.

    A forward pass starts at rest. Only inside :func:`carrying_state` does it go on from where the
    last one ended: that is the one place where state lives between calls.

    Attributes:
        memory_format: how the images that the currents are computed from lie best in memory.
        bytes_taken: set by whoever can take the spikes in bytes (uint8). Where no gradient flows a
            backend may then give them so, and elsewhere as numbers of which it keeps the bytes.
        carried: what is kept from call to call, inside :func:`carrying_state`; None elsewhere.
    """

    memory_format: ClassVar[torch.memory_format] = torch.contiguous_format
    bytes_taken: bool = False

    def __init__(self, decay: float, threshold: float, surrogate: SurrogateWindow) -> None:
        super().__init__()
        self.decay = decay
        self.threshold = threshold
        self.surrogate = surrogate
        self.carried: CarriedState | None = None

    def forward(self, currents: Tensor, norm: nn.Module | None = None, repeats: int = 1) -> Tensor:
        """Spikes in {0, 1} for input currents.

        Args:
            currents: ``(T, N, ...)``.
            norm: normalises the currents first; called with them, time folded into the batch, and
                with ``repeats``.
            repeats: how many equal time steps each of the T stands for; T is 1 where it is not.

        Returns:
            Spikes ``(repeats * T, N, ...)``.

        Raises:
            ValueError: the currents do not have the shape of the state they go on from.
        """
        membrane = None if self.carried is None else self.carried.membrane_of(currents.shape[1:])
        device = currents.device.type
        rounds = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if rounds else nullcontext():
            if norm is None:
                spikes, membrane = self.integrate(_precise(currents), membrane)
            else:
                spikes, membrane = self.integrate_normalised(currents, norm, repeats, membrane)
        if self.carried is not None:
            self.carried.membrane = membrane
        return spikes

    def integrate_normalised(
        self, currents: Tensor, norm: nn.Module, repeats: int, membrane: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Normalise and :meth:`integrate`; a backend may do both at once."""
        normalised = norm(_precise(currents).flatten(0, 1), repeats)
        normalised = normalised.unflatten(0, currents.shape[:2])
        if repeats > 1:
            normalised = normalised.expand(repeats, *normalised.shape[1:])
        return self.integrate(normalised, membrane)

    @abstractmethod
    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run ``(T, N, ...)`` currents from a membrane potential ``(N, ...)``, or from rest.

        Returns the spikes ``(T, N, ...)`` and the potential after the last step's reset.
        """

    @classmethod
    def chain(cls, layers: OrderedDict[str, nn.Module]) -> nn.Sequential:
        """Fully connected layers of these neurons as one module, which runs one after the other.

        A backend may give one of its own, that computes the same.
        """
        return nn.Sequential(layers)

    @classmethod
    @abstractmethod
    def implementation(cls, device: torch.device) -> str:
        """Which code computes the neuron on ``device``, library and version included.

        Raises:
            RuntimeError: the backend cannot run there.
        """


def _precise(currents: Tensor) -> Tensor:
    """In float32, if the precision is lower."""
    return currents.float() if currents.dtype in {torch.bfloat16, torch.float16} else currents


@contextmanager
def carrying_state(module: nn.Module) -> Iterator[None]:
    """Let the neurons within ``module`` keep their state from call to call, from rest at entry.

    Its parameters and buffers stay as they are meanwhile.
    """
    neurons = [layer for layer in module.modules() if isinstance(layer, SpikingNeuron)]
    for neuron in neurons:
        neuron.carried = CarriedState()
    try:
        yield
    finally:
        for neuron in neurons:
            neuron.carried = None


class GenerativeModel(nn.Module, ABC):
    """A model under test, built from (image shape, protocol, backend).

    Attributes:
        version: raised whenever a change of the code moves numbers; part of the cell's key.
        capabilities: what the model can do. A metric that needs more is ``not_applicable``.
        spiking: whether it runs on the spiking backends; else it gets ``backend=None``.
        precisions: the values of the protocol's ``precision`` that the model heeds; it is left out
            under any other. One that heeds ``bfloat16`` computes within :meth:`autocast`.
        Options: the model's own options; validated before anything runs.
    """

    version: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    spiking: ClassVar[bool] = False
    precisions: ClassVar[frozenset[Precision]] = frozenset({"float32"})
    Options: ClassVar[type[ModelOptions]] = ModelOptions

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: type[SpikingNeuron] | None
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.protocol = protocol
        self.backend = backend

    @classmethod
    def unsupported(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Why the model cannot be built for these images ``(C, H, W)``, or None if it can."""
        return None

    @abstractmethod
    def training_step(self, images: Tensor, step: Step) -> dict[str, float]:
        """Learn from one batch ``(N, C, H, W)`` in [-1, 1]; the model owns its optimisers.

        Returns what it minimised, by name; ``"loss"`` is the one that is shown and guarded
        against NaN.
        """

    def training_state(self) -> dict[str, Any]:
        """What training changes beside parameters and buffers, for a checkpoint.

        By default the ``state_dict`` of each attribute that has one and is no module: optimisers,
        schedulers, gradient scalers. A model that keeps more, such as a counter of its own, or
        optimisers in a list, adds it here and takes it back in :meth:`load_training_state`. It may
        hold tensors, numbers, strings, lists, tuples and dicts.
        """
        return {
            name: value.state_dict()
            for name, value in vars(self).items()
            if hasattr(value, "load_state_dict") and not isinstance(value, type)
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`training_state` gave, in a model that was built alike."""
        for name, content in state.items():
            getattr(self, name).load_state_dict(content)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` generated images ``(n, C, H, W)`` in [-1, 1] (capability ``sample``)."""
        raise NotImplementedError

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws of the prior, as :meth:`encode` gives latents (``sample_latents``)."""
        raise NotImplementedError

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Reconstructions ``(N, C, H, W)`` of images, both in [-1, 1] (``reconstruct``)."""
        raise NotImplementedError

    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Latents of images (``encode``).

        A spiking model's are spike trains ``(T, N, D)`` in {0, 1}; any other's are ``(N, D)``, with
        a prior that is symmetric about 0.
        """
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] of latents as :meth:`encode` gives (``decode``)."""
        raise NotImplementedError

    def decode_prefixes(self, latents: Tensor) -> Iterator[Tensor]:
        """:meth:`decode` of the first t = 1..T time steps of spike trains ``(T, N, D)``, in turn.

        In evaluation mode. A model that can do better than T decodings says how.
        """
        for t in range(1, len(latents) + 1):
            yield self.decode(latents[:t])

    def test_loss(self, images: Tensor, step: Step, generator: torch.Generator) -> Tensor:
        """The objective on a batch in evaluation mode, a scalar (``test_loss``)."""
        raise NotImplementedError

    def spiking_layers(self) -> dict[str, nn.Module]:
        """Modules whose output is a spike train ``(T, N, ...)`` in {0, 1}, by readable name."""
        return {
            name.removesuffix(".neuron"): module
            for name, module in self.named_modules()
            if isinstance(module, SpikingNeuron)
        }

    def parts(self) -> dict[str, list[nn.Module]]:
        """The model's ``encoder``, ``latent_sampler`` and ``decoder``, as far as it has them.

        Operations are counted for each of them, with all modules within; what is in none counts for
        the whole model only. The parts share no module.
        """
        return {}

    def activation_layers(self) -> dict[str, nn.Module]:
        """Modules whose output counts as activations: spiking layers and activation functions."""
        functions = {
            name: module
            for name, module in self.named_modules()
            if type(module).__module__ == nn.modules.activation.__name__
            and not isinstance(module, nn.MultiheadAttention)
        }
        return {**functions, **self.spiking_layers()}

    def autocast(self) -> torch.autocast:
        """The context in which synapses compute in the protocol's precision.

        It belongs around forward passes only; the backward pass follows them by itself. Images and
        losses stay in float32.
        """
        lower = self.protocol.precision == "bfloat16"
        # Its cache would hand weights that were cast without gradient to a pass with gradient.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=lower, cache_enabled=False)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device
