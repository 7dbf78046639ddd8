"""FSVAE: a fully spiking VAE with an autoregressive Bernoulli latent."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.divergences import bernoulli_kl, psp_mmd
from baselines.vae import SpikingVAE
from bench.backend import NeuronSpec, SpikingBackend, protocol_neuron, stateful
from bench.model import ImageShape, ModelOptions, Step
from bench.protocol import Protocol

ALPHA = 2.0
KL_WEIGHT = 1e-4
SCHEDULED_FROM_STEP = 5
SCHEDULED_PROBABILITY = (0.1, 0.3)
TIE_BREAKING_NOISE = 1e-3


class FSVAEOptions(ModelOptions):
    """Options of FSVAE.

    Attributes:
        k: number of spikes per latent channel and time step of which one is picked.
        divergence: ``mmd``, or ``kl`` for the paper's ablation.
        mmd_over_time: ``mean`` (official code) or ``sum`` (paper) over time steps.
        scheduled_sampling: True to train the prior on its own output at some time steps.
        scheduled_sampling_update: how often the probability of such a step rises: ``batch``, or
            ``epoch`` (official code).
        posterior_statistics: tdBN statistics used while z is sampled in training. ``prefix``: each
            prefix runs again with its own batch statistics, which also update the running ones
            (official code, O(T^2)). ``running``: one pass with carried state and unchanged running
            statistics (O(T)).
    """

    k: Annotated[int, Field(ge=1)] = 20
    divergence: Literal["mmd", "kl"] = "mmd"
    mmd_over_time: Literal["mean", "sum"] = "mean"
    scheduled_sampling: bool = True
    scheduled_sampling_update: Literal["batch", "epoch"] = "batch"
    posterior_statistics: Literal["prefix", "running"] = "prefix"


class BernoulliNet(nn.Module):
    """Three spiking linear layers whose ``k`` outputs per channel form a Bernoulli process.

    Args:
        inputs: number of input features.
        channels: number of latent channels C.
        k: number of outputs per channel.
        spec: neuron of the layers.
        backend: builds the layers.
    """

    def __init__(
        self, inputs: int, channels: int, k: int, spec: NeuronSpec, backend: SpikingBackend
    ) -> None:
        super().__init__()
        self.channels = channels
        self.k = k
        self.layers = backend.sequence(
            OrderedDict(
                linear1=backend.linear(inputs, 2 * channels, spec, ALPHA),
                linear2=backend.linear(2 * channels, 4 * channels, spec, ALPHA),
                linear3=backend.linear(4 * channels, k * channels, spec, ALPHA),
            )
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return spikes ``(T, N, C, k)``, of any numeric dtype, for inputs ``(T, N, inputs)``."""
        spikes: Tensor = self.layers(inputs)
        return spikes.unflatten(-1, (self.channels, self.k))


def pick(spikes: Tensor, indices: Tensor) -> Tensor:
    """Return one of the ``k`` spikes in ``(..., k)`` for each index in ``(...)``.

    >>> pick(torch.tensor([[0, 1], [1, 0]]), torch.tensor([1, 1])).tolist()
    [1, 0]
    """
    return spikes.gather(-1, indices[..., None])[..., 0]


def delayed(latents: Tensor) -> Tensor:
    """Return ``(z_0 = 0, z_1, ..., z_{T-1})`` for ``(z_1, ..., z_T)``, both ``(T, ...)``.

    >>> delayed(torch.tensor([1, 2, 3])).tolist()
    [0, 1, 2]
    """
    return torch.cat([torch.zeros_like(latents[:1]), latents[:-1]])


@contextmanager
def _running_statistics(net: nn.Module) -> Iterator[None]:
    """Put ``net`` into evaluation mode and let its neurons carry their state."""
    training = net.training
    net.eval()
    try:
        with stateful(net):
            yield
    finally:
        net.train(training)


class FSVAE(SpikingVAE):
    """FSVAE (Kamata et al., AAAI 2022, arXiv:2110.00375)."""

    version = "1"
    Options: ClassVar[type[FSVAEOptions]] = FSVAEOptions

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        self.model_options = self.Options.model_validate(protocol.options)
        channels, k, spec = protocol.latent_size, self.model_options.k, protocol_neuron(protocol)
        backend = self.spiking_backend
        self.posterior = BernoulliNet(2 * channels, channels, k, spec, backend)
        self.prior = BernoulliNet(channels, channels, k, spec, backend)
        self.latent = nn.Identity()

    def latent_sampler(self) -> list[nn.Module]:
        """Return posterior and prior."""
        return [self.posterior, self.prior]

    def prior_modules(self) -> list[nn.Module]:
        """Return the prior's net."""
        return [self.prior]

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return spikes ``(T, N, latent_size)`` drawn from the posterior q(z_t | x_<=t, z_<t)."""
        with self.autocast():
            return self.posterior_pass(self.encoded(images), generator)[0]

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return spikes ``(T, n, latent_size)`` drawn step by step from the prior p(z_t | z_<t)."""
        time_steps, channels = self.protocol.time_steps, self.protocol.latent_size
        indices = self._indices((time_steps, n, channels), generator)
        latent = torch.zeros((1, n, channels), device=self.device, dtype=self.dtype)
        latents = []
        with self.autocast(), _running_statistics(self.prior):
            for index in indices:
                latent = pick(self.prior(latent), index[None]).to(self.dtype)
                latents.append(latent)
        return self.latent(torch.cat(latents))

    def posterior_pass(
        self, encoded: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return z ``(T, N, C)`` and the posterior's outputs ``(T, N, C, k)`` for ``(T, N, C)``.

        In training the inputs z_<t are sampled first, without gradient; z is then picked, at the
        same indices, from one pass with gradient. In evaluation mode both passes would be equal, so
        one step-by-step pass suffices.
        """
        indices = self._indices(encoded.shape, generator)
        if not self.training:
            steps = list(self._posterior_by_steps(encoded, indices))
            latents, outputs = (torch.cat(of_steps) for of_steps in zip(*steps, strict=True))
            return self.latent(latents), outputs.to(encoded.dtype)
        with torch.no_grad():
            if self.model_options.posterior_statistics == "prefix":
                inputs = self._posterior_by_prefixes(encoded, indices)
            else:
                by_steps = self._posterior_by_steps(encoded[:-1], indices[:-1])
                inputs = torch.cat([torch.zeros_like(encoded[:1]), *(z for z, _ in by_steps)])
        outputs = self.posterior(torch.cat([encoded, inputs], dim=-1)).to(encoded.dtype)
        return self.latent(pick(outputs, indices)), outputs

    def prior_pass(
        self, latents: Tensor, step: Step, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the prior's outputs ``(T, N, C, k)`` given z; no gradient flows to z.

        Args:
            latents: z, ``(T, N, C)``. In training some steps are replaced by the prior's own
                output (scheduled sampling).
            step: position of the batch in the run, which sets the probability of replacement.
            generator: source of random draws; PyTorch's default generator if None.
        """
        latents = latents.detach()
        if self.training and self.model_options.scheduled_sampling:
            with torch.no_grad():
                latents = self._scheduled(latents, step, generator)
        return self.prior(delayed(latents)).to(latents.dtype)

    def replacement_probability(self, step: Step) -> float | Tensor:
        """Return the probability that scheduled sampling replaces a time step of z.

        It rises from 0.1 to 0.3 over the training, with each batch or each epoch. It is a scalar on
        the device if the progress is.
        """
        first, last = SCHEDULED_PROBABILITY
        progress, epochs = step.progress, self.protocol.epochs
        if self.model_options.scheduled_sampling_update == "epoch":
            # Rounded, since an epoch's first batch can come out just below a whole number.
            if isinstance(progress, Tensor):
                progress = (progress * epochs).round(decimals=6).floor() / epochs
            else:
                progress = math.floor(round(progress * epochs, 6)) / epochs
        return first + (last - first) * progress

    def losses(
        self, images: Tensor, step: Step, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return ``MSE + MMD``, or ``MSE + 1e-4 * KL`` (arXiv:2110.00375), and both terms."""
        with self.autocast():
            latents, posterior = self.posterior_pass(self.encoded(images), generator)
            prior = self.prior_pass(latents, step, generator)
        reconstruction_loss = F.mse_loss(self.decode(latents), images)
        q, p = posterior.mean(-1), prior.mean(-1)
        if self.model_options.divergence == "mmd":
            divergence = psp_mmd(q, p, self.model_options.mmd_over_time)
            loss = reconstruction_loss + divergence
        else:
            divergence = bernoulli_kl(q, p)
            loss = reconstruction_loss + KL_WEIGHT * divergence
        return {
            "loss": loss,
            "reconstruction_loss": reconstruction_loss,
            self.model_options.divergence: divergence,
        }

    def spiking_layers(self) -> dict[str, nn.Module]:
        """Return the neurons and the latent picked from posterior or prior, by name."""
        names = super().spiking_layers()
        return {
            **{name.replace(".layers.", "."): m for name, m in names.items()},
            "latent": self.latent,
        }

    def _indices(self, size: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        k = self.model_options.k
        return torch.randint(k, tuple(size), generator=generator, device=self.device)

    def _posterior_by_steps(
        self, encoded: Tensor, indices: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield z ``(1, N, C)`` and the posterior's outputs ``(1, N, C, k)``, step by step."""
        latent = torch.zeros_like(encoded[:1])
        with _running_statistics(self.posterior):
            for spikes, index in zip(encoded, indices, strict=True):
                output = self.posterior(torch.cat([spikes[None], latent.detach()], dim=-1))
                latent = pick(output, index[None]).to(encoded.dtype)
                yield latent, output

    def _posterior_by_prefixes(self, encoded: Tensor, indices: Tensor) -> Tensor:
        """Return the inputs ``(z_0, ..., z_{T-1})`` of the pass with gradient."""
        inputs = torch.zeros_like(encoded[:1])
        for t in range(len(encoded) - 1):
            output = self.posterior(torch.cat([encoded[: t + 1], inputs], dim=-1))
            inputs = torch.cat([inputs, pick(output[-1:], indices[t : t + 1])])
        return inputs

    def _scheduled(self, latents: Tensor, step: Step, generator: torch.Generator | None) -> Tensor:
        """Return z with some steps replaced by the prior's mean output, thresholded at 1/2.

        One draw per time step decides for the whole batch. Where the progress is on the host, the
        host decides, and the prior computes only what is replaced. Where it is on the device, as in
        a CUDA graph, the prior computes every step, and what is not replaced is left as it was.
        """
        on_device = isinstance(step.progress, Tensor)
        # Drawn on the CPU if the host decides by them: it would wait for draws of a GPU.
        device = generator.device if generator else latents.device if on_device else "cpu"
        draws = torch.rand(len(latents), generator=generator, device=device)
        replaced = draws < self.replacement_probability(step)
        by_steps = self.model_options.posterior_statistics == "running"
        latents = latents.clone()
        with _running_statistics(self.prior) if by_steps else nullcontext():
            if not on_device:
                self._replace_some(latents, replaced.tolist(), by_steps, generator)
            elif by_steps:
                self._replace_by_steps(latents, replaced, generator)
            else:
                self._replace_by_prefixes(latents, replaced, generator)
        return latents

    def _replace_some(
        self,
        latents: Tensor,
        replaced: list[bool],
        by_steps: bool,
        generator: torch.Generator | None,
    ) -> None:
        """Replace the steps of z ``(T, N, C)`` for which ``replaced`` is True, in place.

        Args:
            latents: z, ``(T, N, C)``.
            replaced: T decisions of the host.
            by_steps: True if the prior's neurons carry their state from call to call.
            generator: source of random draws.
        """
        begin = 0
        for t in range(SCHEDULED_FROM_STEP, len(latents) - 1):
            if replaced[t]:
                outputs = self.prior(delayed(latents[: t + 1])[begin:])
                latents[t] = _thresholded(outputs[-1], latents.dtype, generator)
                begin = t + 1 if by_steps else 0

    def _replace_by_prefixes(
        self, latents: Tensor, replaced: Tensor, generator: torch.Generator | None
    ) -> None:
        """Do the same with decisions ``(T,)`` on the device; the prior runs on each prefix."""
        for t in range(SCHEDULED_FROM_STEP, len(latents) - 1):
            before = [buffer.clone() for buffer in self.prior.buffers()]
            outputs = self.prior(delayed(latents[: t + 1]))
            for buffer, old in zip(self.prior.buffers(), before, strict=True):
                buffer.copy_(torch.where(replaced[t], buffer, old))
            spikes = _thresholded(outputs[-1], latents.dtype, generator)
            latents[t] = torch.where(replaced[t], spikes, latents[t])

    def _replace_by_steps(
        self, latents: Tensor, replaced: Tensor, generator: torch.Generator | None
    ) -> None:
        """Do the same with a prior whose neurons carry their state, one step at a time."""
        previous = torch.zeros_like(latents[0])
        for t in range(len(latents) - 1):
            output = self.prior(previous[None])
            if t >= SCHEDULED_FROM_STEP:
                spikes = _thresholded(output[0], latents.dtype, generator)
                latents[t] = torch.where(replaced[t], spikes, latents[t])
            previous = latents[t]


def _thresholded(outputs: Tensor, dtype: torch.dtype, generator: torch.Generator | None) -> Tensor:
    """Return 1 where the mean of outputs ``(N, C, k)`` exceeds 1/2, else 0, ``(N, C)``."""
    mean = outputs.to(dtype).mean(-1)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=dtype)
    return (mean + TIE_BREAKING_NOISE * noise > 0.5).to(dtype)
