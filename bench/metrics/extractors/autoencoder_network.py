"""The plain autoencoder whose latents the Fréchet autoencoder distance compares."""

import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_MAP = 2
CHANNELS = {32: (32, 64, 128, 256), 64: (32, 64, 128, 256, 512)}
PADDED_SIZE = {28: 32, 32: 32, 64: 64}
"""Height and width that the network sees, by height and width of the images."""
PADDING_VALUE = -1.0


class AutoencoderNetwork(nn.Module):
    """The autoencoder of FSVAE's evaluation (Kamata et al., arXiv:2110.00375).

    The encoder has 3x3 convolutions of stride 2, each with batch norm and LeakyReLU(0.01), down to
    a 2x2 map, and one linear layer to the latent. The decoder is its mirror image, with Tanh at the
    end. Modules have the names of the published state dicts. Images of 28x28 pixels are padded to
    32x32 with the lowest value, two pixels on each side.

    Args:
        image_channels: number of channels C, 1 or 3.
        image_size: height and width, 28 or 32 (four convolutions) or 64 (five).
        latent_size: number of latents D.

    Raises:
        KeyError: another image size.
    """

    def __init__(self, image_channels: int, image_size: int, latent_size: int) -> None:
        super().__init__()
        self.padding = (PADDED_SIZE[image_size] - image_size) // 2
        channels = CHANNELS[PADDED_SIZE[image_size]]
        features = channels[-1] * SMALLEST_MAP**2
        inputs = (image_channels, *channels[:-1])
        self.encoder = nn.Sequential(*map(_down, inputs, channels))
        self.latent_layer = nn.Linear(features, latent_size)
        self.decoder_input = nn.Linear(latent_size, features)
        self.decoder = nn.Sequential(*map(_up, channels[:0:-1], channels[-2::-1]))
        self.final_layer = nn.Sequential(
            *_up(channels[0], channels[0]),
            nn.ConvTranspose2d(channels[0], image_channels, kernel_size=3, padding=1),
            nn.Tanh(),
        )

    def encode(self, images: Tensor) -> Tensor:
        """Encode images ``(N, C, H, W)`` in [-1, 1] as latents ``(N, D)``."""
        return self.latent_layer(self.encoder(self._padded(images)).flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct images ``(N, C, H, W)`` in [-1, 1]; the result has the same shape."""
        features = self.decoder_input(self.encode(images))
        smallest_map = features.unflatten(1, (-1, SMALLEST_MAP, SMALLEST_MAP))
        reconstructions: Tensor = self.final_layer(self.decoder(smallest_map))
        size = images.shape[-1]
        return reconstructions[..., self.padding :, self.padding :][..., :size, :size]

    def _padded(self, images: Tensor) -> Tensor:
        return F.pad(images, [self.padding] * 4, value=PADDING_VALUE) if self.padding else images


def _down(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.01))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(
        inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.01))
