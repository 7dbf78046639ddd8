"""A model to check, with everything that it is built from."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bench import registry
from bench.backend import SpikingBackend
from bench.datasets.batches import to_unit_range
from bench.errors import BenchError
from bench.model import GenerativeModel, ImageShape, Step
from bench.protocol import Protocol, load_protocol
from bench.system.devices import resolve_device
from bench.system.random_state import seed_everything
from bench.testing.equations import PlainBackend

SETTINGS = ("time_steps=4", "latent_size=8", "batch_size=8", "epochs=2")
"""Settings that are small enough for a check, on top of the protocol ``smoke``."""
CLASSES = 10
"""Number of classes for a class-conditional model."""
SIZES = (32, 64, 28)
"""Image sizes that are tried, the first that the model supports being used."""
TRAINING_IMAGES = 24
STEPS = 4


@dataclass(frozen=True)
class ModelSubject:
    """A model to check.

    Attributes:
        model_class: the class.
        backend: backend of a spiking model.
        image_shape: shape ``(C, H, W)`` of the images.
        protocol: protocol, resolved for the model.
        device: device of the model.
    """

    model_class: type[GenerativeModel]
    backend: type[SpikingBackend]
    image_shape: ImageShape
    protocol: Protocol
    device: torch.device

    @property
    def training_images(self) -> Tensor:
        """Random training images, uint8 ``(N, C, H, W)``."""
        generator = torch.Generator().manual_seed(2)
        shape = (TRAINING_IMAGES, *self.image_shape)
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(self.device)

    @property
    def training_labels(self) -> Tensor | None:
        """Random labels ``(N,)`` of the training images; None for a model that takes none."""
        return self.labels(TRAINING_IMAGES).get("labels")

    def labels(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """Return the keyword argument ``labels``, random ``(n,)``, if the model takes it."""
        if not self.model_class.class_conditional:
            return {}
        generator = torch.Generator().manual_seed(seed)
        return {"labels": torch.randint(CLASSES, (n,), generator=generator).to(self.device)}

    def images(self, n: int, seed: int = 0) -> Tensor:
        """Return random images ``(n, C, H, W)`` in [-1, 1]."""
        generator = torch.Generator().manual_seed(seed)
        shape = (n, *self.image_shape)
        pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        return to_unit_range(pixels.to(self.device))

    def generator(self, seed: int = 1) -> torch.Generator:
        """Return a generator on the model's device."""
        return torch.Generator(self.device).manual_seed(seed)

    def built(self, seed: int = 0) -> GenerativeModel:
        """Return an untrained model, built from a seed."""
        seed_everything(seed)
        backend = self.backend() if self.model_class.spiking else None
        classes = {"classes": CLASSES} if self.model_class.class_conditional else {}
        model = self.model_class(self.image_shape, self.protocol, backend, **classes)
        return model.to(self.device)

    def evaluated(self) -> GenerativeModel:
        """Return a model in evaluation mode that has taken a few steps of training."""
        model = self.built()
        model.load_state_dict(self._weights)
        return model.eval()

    def learn(self, model: GenerativeModel, step: int) -> Mapping[str, Tensor | float]:
        """Take one of :data:`STEPS` training steps on random images ``(N, C, H, W)``.

        Args:
            model: model in training mode.
            step: number of the step, from 0.

        Returns:
            The losses by name.
        """
        n, seed = self.protocol.batch_size, 10 + step
        images, labels = self.images(n, seed), self.labels(n, seed)
        names = [stage.name for stage in model.stages(self.protocol)] or [""]
        stage = names[step * len(names) // STEPS]
        if stage:
            model.begin_stage(stage, self.training_images)
        return model.training_step(images, Step(step / STEPS, STEPS, stage=stage), **labels)

    @cached_property
    def _weights(self) -> Mapping[str, Tensor]:
        model = self.built().train()
        # The checks of the training report an error; the others judge the model as it is.
        with suppress(Exception):
            for step in range(STEPS):
                self.learn(model, step)
        return model.state_dict()


def model_subject(
    model: str | type[GenerativeModel],
    backend: str | type[SpikingBackend] | None,
    settings: Iterable[str],
    device: str,
) -> ModelSubject:
    """Choose what a model is built from.

    Args:
        model: registered name, or class.
        backend: backend of a spiking model, registered name or class; None for the plain equations.
        settings: ``key=value`` settings of the protocol.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        BenchError: an unknown name or setting, or no shape of images that the model supports.
    """
    model_class = registry.models.load(model) if isinstance(model, str) else model
    name = model if isinstance(model, str) else model.__name__
    chosen = registry.backends.load(backend) if isinstance(backend, str) else backend
    reasons = []
    for size in SIZES:
        changes = (*SETTINGS, f"image_size={size}", *settings)
        protocol = load_protocol("smoke", changes).resolve(name, "digits")
        for channels in (1, 3):
            shape = (channels, protocol.image_size, protocol.image_size)
            reason = model_class.unsupported(shape, protocol)
            if reason is None:
                place = resolve_device(device)
                return ModelSubject(model_class, chosen or PlainBackend, shape, protocol, place)
            reasons.append(reason)
    raise BenchError(
        f"The model {name!r} supports none of the image shapes that are tried: {reasons[0]}. Set "
        "another with --set image_size=N."
    )
