"""Latents of a plain autoencoder, the features of the Fréchet autoencoder distance."""

import torch
from torch import Tensor, nn

from bench.errors import SkippedError
from bench.metrics.extractors.autoencoder_network import CHANNELS, AutoencoderNetwork
from bench.metrics.extractors.autoencoder_published import (
    PUBLISHED,
    WEIGHT_FILES,
    published_statistics,
    published_weights,
)
from bench.metrics.extractors.autoencoder_training import (
    VERSION,
    trained_autoencoder,
    weights_sha256,
)
from bench.metrics.extractors.extractor import ExtractorContext, Features, TrainedExtractor
from bench.protocol import Protocol

OFFICIAL_GENERATED_BATCH = 128
OFFICIAL_REFERENCE_BATCH = 256


class Autoencoder(TrainedExtractor):
    """Latents ``(N, D)`` in evaluation mode; D is 64 for MNIST and Fashion-MNIST, else 128.

    For the real MNIST and Fashion-MNIST, resized to 32x32 bilinearly, the weights are those
    published with FSVAE's code, if they are under the data root (``fad/stat_checkpoints``) or given
    as ``--weights fad_mnist=PATH`` or ``fad_fashion_mnist=PATH``. Otherwise the suite trains the
    autoencoder on the training images. The description says which weights are in use. Images are
    neither resized nor quantised.
    """

    cell_name = "fad_autoencoder"
    version = VERSION
    weight_files = tuple(WEIGHT_FILES.values())

    @classmethod
    def training_fields(cls, protocol: Protocol) -> tuple[str, ...] | None:
        """Return the fields of images and training; None unless images are 32x32 or 64x64."""
        if protocol.image_size not in CHANNELS:
            return None
        return (
            "image_size",
            "center_crop",
            "interpolation",
            "train_images",
            "autoencoder_epochs",
            "autoencoder_batch_size",
        )

    def __init__(self, context: ExtractorContext) -> None:
        """Load the published weights, or train.

        Raises:
            SkippedError: the image size is neither 32x32 nor 64x64.
            BenchError: the file of the published weights has the wrong checksum.
        """
        self._load(context, "evaluation mode")

    def __call__(self, images: Tensor) -> Features:
        """Compute latents ``(N, D)`` of images ``(N, C, H, W)`` in [-1, 1]."""
        with torch.no_grad():
            return Features(self._network.encode(images.to(self._device)).float().cpu())

    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstruct images ``(N, C, H, W)`` in [-1, 1]; the result has the same shape."""
        with torch.no_grad():
            return self._network(images.to(self._device)).float().cpu()

    def _load(self, context: ExtractorContext, mode: str) -> None:
        size = context.protocol.image_size
        if size not in CHANNELS:
            raise SkippedError(
                f"the autoencoder is built for 32x32 and 64x64 images, not {size}x{size}: set "
                "image_size=32 or image_size=64 in the protocol"
            )
        self._device = context.device
        # Chosen by name, so that a file that replaces MNIST is measured with as many latents.
        latent_size = 64 if context.dataset in PUBLISHED else 128
        path = published_weights(context)
        if path is None:
            self._network = trained_autoencoder(context, latent_size)
            self.sha256 = weights_sha256(self._network.state_dict())
            epochs = context.protocol.autoencoder_epochs
            origin = f"trained on {len(context.train_images)} images, {epochs} epochs"
        else:
            self._network = AutoencoderNetwork(1, size, latent_size).to(context.device)
            weights = torch.load(path, map_location=context.device, weights_only=True)
            self._network.load_state_dict(weights)
            self.sha256 = PUBLISHED[context.dataset].weights_sha256
            origin = f"published, {PUBLISHED[context.dataset].weights.name}"
        self._network.eval()
        self.description = (
            f"autoencoder ({origin}), {latent_size} latents, {size}x{size}, not resized, "
            f"not quantised, {mode}"
        )


class OfficialAutoencoder(Autoencoder):
    """Latents ``(N, D)`` in training mode, as the official code of FSVAE and ESVAE computes them.

    That code never puts the autoencoder in evaluation mode, so batch norm uses the statistics of
    each batch, and the latent of an image depends on the other images of its batch. Generated
    images are encoded in batches of 128, reference images in batches of 256, in order.

    Attributes:
        statistics: published mean ``(D,)`` and covariance ``(D, D)`` of the latents of the whole
            test set; None if the weights are not the published ones, the reference is not the test
            split, or the file is not under the data root (``fad/stats``).
    """

    reference_batch = OFFICIAL_REFERENCE_BATCH
    generated_batch = OFFICIAL_GENERATED_BATCH

    def __init__(self, context: ExtractorContext) -> None:
        """Load the published weights and statistics, or train.

        Raises:
            SkippedError: the image size is neither 32x32 nor 64x64.
            BenchError: a published file has the wrong checksum.
        """
        self.statistics = published_statistics(context)
        computed = f"reference in batches of {OFFICIAL_REFERENCE_BATCH}"
        reference = "published reference statistics" if self.statistics else computed
        self._load(context, f"batch statistics, {reference}")
        for module in self._network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Without running statistics, batch norm always uses the batch's.
                module.track_running_stats = False
                module.running_mean = module.running_var = None
