"""TAID: FSVAE whose read-out weights the time steps by temporal attention."""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.fsvae import FSVAE, FSVAEOptions
from bench.backend import MembraneReadout, SpikingBackend
from bench.model import ImageShape
from bench.protocol import Protocol


class TAIDOptions(FSVAEOptions):
    """Options of TAID: FSVAE's, and the kind of attention.

    Attributes:
        attention: ``per_channel``, a weight per time step and image channel (official code), or
            ``shared``, a weight per time step for all image channels (figure in the official
            repository).
    """

    attention: Literal["per_channel", "shared"] = "per_channel"


class TemporalAttentionReadout(nn.Module):
    """``tanh(sum_t a[t, c] * x_t[c])``: currents x of each image channel, weighted in time.

    ``a[:, c] = sigmoid(W m[:, c])``, where ``m[t, c]`` is the spatial mean of ``x_t[c]`` and W a
    learned T x T matrix (official code of arXiv:2406.03046).

    Both factors are linear in the spikes, so no time step is convolved. The mean is an inner
    product of the spikes with a map that depends on the weights alone: at each border a pixel
    misses the taps that lead out of the image. The synapses run once, on the weighted sum of their
    inputs, one for each image channel.

    Args:
        synapse: transposed convolution with stride 1 from spikes to image channels, whose
            parameters are taken over.
        time_steps: number of time steps T.
        attention: see :class:`TAIDOptions`.
        backend: computes sums of spikes.
    """

    def __init__(
        self,
        synapse: nn.ConvTranspose2d,
        time_steps: int,
        attention: Literal["per_channel", "shared"],
        backend: SpikingBackend,
    ) -> None:
        super().__init__()
        inputs, channels = synapse.in_channels, synapse.out_channels
        self.channels, self.time_steps, self.shared = channels, time_steps, attention == "shared"
        self.backend = backend
        # A group per image channel: each has a weighted sum of its own.
        self.synapse = nn.ConvTranspose2d(
            inputs * channels, channels, kernel_size=3, padding=1, groups=channels
        )
        self.synapse.weight.data = synapse.weight.data.transpose(0, 1).flatten(0, 1)[:, None]
        self.synapse.bias = synapse.bias
        self.attention = nn.Linear(time_steps, time_steps, bias=False)

    def forward(self, spikes: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in [-1, 1] for spikes ``(T, N, C', H, W)``."""
        bias = self.synapse.bias
        assert bias is not None
        with torch.autocast(spikes.device.type, enabled=False):
            maps = self._mean_maps(spikes.shape[3:])
            means = self.backend.inner_products(spikes, maps) + bias
            weights = self.attention_weights(means)
            totals = self.backend.weighted_sums(spikes, weights)
        inputs = totals.expand(-1, self.channels, -1, -1, -1).flatten(1, 2)
        potential = self.synapse(inputs).to(totals)
        extra_bias = (weights.sum(0) - 1) * bias
        return torch.tanh(potential + extra_bias[:, :, None, None])

    def attention_weights(self, means: Tensor) -> Tensor:
        """Return ``sigmoid(W m)`` for spatial means m of the currents.

        Args:
            means: means ``(t, N, C)`` of the first t time steps; the others count as 0.

        Returns:
            Weights ``(t, N, C)`` in (0, 1), or ``(t, N, 1)`` if all image channels share them.
        """
        if self.shared:
            means = means.mean(-1, keepdim=True)
        later = means.new_zeros((self.time_steps - len(means), *means.shape[1:]))
        # Image channels first: operations are counted per image of the last axis but one.
        by_step = torch.cat([means, later]).permute(2, 1, 0)
        return torch.sigmoid(self.attention(by_step)).permute(2, 1, 0)[: len(means)]

    def prefixes(self, spikes: Tensor) -> Iterator[Tensor]:
        """Yield the images ``(N, C, H, W)`` of the first t = 1..T steps of ``(T, N, C', H, W)``.

        W takes all T steps. The currents of the steps after t, their bias included, count as 0, so
        the weights of a step change with t.
        """
        steps = []
        for spike in spikes:
            inputs = spike.to(self.synapse.weight.dtype).repeat(1, self.channels, 1, 1)
            steps.append(self.synapse(inputs).to(self.synapse.weight.dtype))
        currents = torch.stack(steps)
        with torch.autocast(spikes.device.type, enabled=False):
            for t in range(1, len(currents) + 1):
                weights = self.attention_weights(currents[:t].mean((-2, -1)))
                yield torch.tanh((weights[..., None, None] * currents[:t]).sum(0))

    def _mean_maps(self, size: torch.Size) -> Tensor:
        """Return the derivatives of the currents' spatial means by the inputs, ``(C, C', H, W)``.

        Args:
            size: height and width of the image.
        """
        ones = self.synapse.weight.new_full((1, self.channels, *size), 1 / size.numel())
        maps = F.conv2d(ones, self.synapse.weight, padding=1, groups=self.channels)
        return maps[0].unflatten(0, (self.channels, -1))


class TAID(FSVAE):
    """TAID (Qiu et al., ICLR 2023 Tiny Papers, arXiv:2406.03046), with plain LIF neurons.

    The time steps' weights of an image depend on all T steps. A prefix is decoded as if the
    read-out's currents of the later steps were 0, so :meth:`decode` of fewer than T steps is
    defined, and :meth:`decode_prefixes` yields it.
    """

    version = "1"
    Options = TAIDOptions

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        readout = self.decoder.readout
        backend = self.spiking_backend
        assert isinstance(readout, MembraneReadout)
        attention = TAIDOptions.model_validate(protocol.options).attention
        self.decoder.readout = TemporalAttentionReadout(
            readout.synapse, protocol.time_steps, attention, backend
        )
