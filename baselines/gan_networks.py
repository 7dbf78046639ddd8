"""Generators and discriminators of the spiking GANs (arXiv:2305.10246 and its official code).

Images are ``(N, C, H, W)`` in [0, 1] here. Of the published networks, one takes 28x28 grey images
and one 64x64 RGB images; the network for 32x32 images is the suite's own.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from baselines.gan_layers import Integrator, PerStepBatchNorm, PerStepLayer
from bench.backend import NeuronSpec, SpikingBackend
from bench.model import ImageShape

HIDDEN = 1024
READOUT_SCALE = 16
"""What the code divides the last potential by, whatever T is."""
DISCRIMINATOR_CHANNELS = 32, 64
DISCRIMINATOR_KERNEL = 5
SGAN_HIDDEN = 400


@dataclass(frozen=True)
class NetworkSize:
    """Sizes of a generator and of its discriminator.

    Attributes:
        smallest_map: height and width of the generator's first map.
        channels: channels of the generator's maps; the image is not one of them.
        discriminator_hidden: outputs of the discriminator's first linear layer.
    """

    smallest_map: int
    channels: tuple[int, ...]
    discriminator_hidden: int


SIZES = {
    28: NetworkSize(7, (128, 64), 1024),
    32: NetworkSize(8, (128, 64), 1024),
    64: NetworkSize(8, (128, 64, 32), 2048),
}
PUBLISHED_SHAPES = {(1, 28, 28), (3, 64, 64)}
OWN_SIZE = 32


class Generator(nn.Module):
    """Latents ``(N, D)`` to the spikes ``(T, N, C', H / 2, W / 2)`` before the last layer.

    The latent is the input at each time step, so the first synapses and their batch norm run once.

    Args:
        latent_size: number of latents D.
        image_shape: shape of the images, ``(C, H, W)``.
        spec: neuron of all layers.
        backend: builds the neurons.
        batch_statistics: True to use the statistics of the batch in evaluation mode as well.
    """

    def __init__(
        self,
        latent_size: int,
        image_shape: ImageShape,
        spec: NeuronSpec,
        backend: SpikingBackend,
        batch_statistics: bool,
    ) -> None:
        super().__init__()
        size = SIZES[image_shape[1]]
        self.smallest_map = (size.channels[0], size.smallest_map, size.smallest_map)
        features = size.channels[0] * size.smallest_map**2

        def layer(synapse: nn.Module, outputs: int) -> nn.Module:
            norm = PerStepBatchNorm(outputs, batch_statistics)
            return backend.fastest(PerStepLayer(synapse, backend.neuron(spec), norm))

        self.linear1 = layer(nn.Linear(latent_size, HIDDEN), HIDDEN)
        self.linear2 = layer(nn.Linear(HIDDEN, features), features)
        widths = zip(size.channels[:-1], size.channels[1:], strict=True)
        self.deconvolutions = nn.Sequential(
            *(layer(upsampling4(inputs, outputs), outputs) for inputs, outputs in widths)
        )

    def forward(self, latents: Tensor, time_steps: int) -> Tensor:
        """Return spikes ``(T, N, C', H / 2, W / 2)`` for latents ``(N, D)``."""
        spikes = self.linear2(self.linear1(latents[None], time_steps))
        result: Tensor = self.deconvolutions(spikes.unflatten(2, self.smallest_map))
        return result


class IntegratingReadout(nn.Module):
    """The last layer of SWGAN: ``sigmoid(u_T / 16)`` of an integrator that never fires."""

    def __init__(self, image_shape: ImageShape, backend: SpikingBackend) -> None:
        super().__init__()
        self.integrator = backend.fastest(Integrator(to_image(image_shape)))

    def forward(self, spikes: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` for spikes ``(T, N, C', H / 2, W / 2)``."""
        potential: Tensor = self.integrator(spikes)
        return (potential / READOUT_SCALE).sigmoid()


class SpikingReadout(nn.Module):
    """The last layer of SGAN: neurons whose spike train is the image at each time step."""

    def __init__(self, image_shape: ImageShape, spec: NeuronSpec, backend: SpikingBackend) -> None:
        super().__init__()
        self.layer = backend.fastest(PerStepLayer(to_image(image_shape), backend.neuron(spec)))

    def forward(self, spikes: Tensor) -> Tensor:
        """Return spikes ``(T, N, C, H, W)`` for spikes ``(T, N, C', H / 2, W / 2)``."""
        image: Tensor = self.layer(spikes)
        return image


class ConvolutionalDiscriminator(nn.Module):
    """The critic of SWGAN and SGAD: images ``(N, C, H, W)`` to one number per image.

    Two 5x5 convolutions without padding, each with batch norm, neurons and average pooling by 2,
    then two linear layers, of which the last is an integrator that never fires. The image is the
    input at each time step, so the first convolution and its batch norm run once.

    Args:
        image_shape: shape of the images, ``(C, H, W)``.
        spec: neuron of all layers.
        backend: builds the neurons.
    """

    def __init__(self, image_shape: ImageShape, spec: NeuronSpec, backend: SpikingBackend) -> None:
        super().__init__()
        channels, size = image_shape[0], image_shape[1]
        hidden = SIZES[size].discriminator_hidden
        first, second = DISCRIMINATOR_CHANNELS
        for _ in DISCRIMINATOR_CHANNELS:
            size = (size - DISCRIMINATOR_KERNEL + 1) // 2

        def pooled_layer(inputs: int, outputs: int) -> nn.Module:
            synapse = nn.Conv2d(inputs, outputs, DISCRIMINATOR_KERNEL)
            norm = PerStepBatchNorm(outputs)
            return backend.fastest(PerStepLayer(synapse, backend.neuron(spec), norm, pooled=True))

        self.convolution1 = pooled_layer(channels, first)
        self.convolution2 = pooled_layer(first, second)
        linear = PerStepLayer(nn.Linear(second * size**2, hidden), backend.neuron(spec))
        self.linear = backend.fastest(linear)
        self.integrator = backend.fastest(Integrator(nn.Linear(hidden, 1)))

    def forward(self, images: Tensor, time_steps: int) -> Tensor:
        """Return the critic's values ``(N,)`` for images ``(N, C, H, W)``."""
        spikes = self.convolution2(self.convolution1(images[None], time_steps))
        potential: Tensor = self.integrator(self.linear(spikes.flatten(2)))
        return potential.flatten() / READOUT_SCALE


class LinearDiscriminator(nn.Module):
    """The discriminator of SGAN: linear, neurons, linear, an integrator that never fires.

    Args:
        image_shape: shape of the images, ``(C, H, W)``.
        spec: neuron of the first layer.
        backend: builds the neurons.
    """

    def __init__(self, image_shape: ImageShape, spec: NeuronSpec, backend: SpikingBackend) -> None:
        super().__init__()
        channels, height, width = image_shape
        synapse = nn.Linear(channels * height * width, SGAN_HIDDEN)
        self.linear = backend.fastest(PerStepLayer(synapse, backend.neuron(spec)))
        self.integrator = backend.fastest(Integrator(nn.Linear(SGAN_HIDDEN, 1)))

    def forward(self, images: Tensor, repeats: int = 1) -> Tensor:
        """Return the logit of each image being real, ``(N,)``.

        Args:
            images: images at each time step, ``(T, N, C, H, W)``.
            repeats: number of equal time steps that ``images`` ``(1, N, C, H, W)`` stands for.
        """
        potential: Tensor = self.integrator(self.linear(images.flatten(2), repeats))
        return potential.flatten()


def upsampling4(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution, ``(R, inputs, H, W)`` to ``(R, outputs, 2 * H, 2 * W)``."""
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1)


def to_image(image_shape: ImageShape) -> nn.ConvTranspose2d:
    """Return the generator's last transposed convolution, to images ``(R, C, H, W)``."""
    return upsampling4(SIZES[image_shape[1]].channels[-1], image_shape[0])
