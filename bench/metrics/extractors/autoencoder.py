"""Latents of a plain autoencoder, the features of the Fréchet autoencoder distance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import SkippedError
from bench.metrics.extractors.autoencoder_network import PADDED_SIZE
from bench.metrics.extractors.autoencoder_published import (
    PUBLISHED,
    WEIGHT_FILES,
    published_statistics,
    published_weights,
)
from bench.metrics.extractors.autoencoder_training import (
    VERSION,
    fresh_network,
    keep_trained,
    trained_autoencoder,
    training_content,
)
from bench.metrics.extractors.extractor import ExtractorContext, Features, TrainedExtractor
from bench.protocol import Protocol
from bench.store.trained_weights import TrainedWeights
from bench.system.paths import Resources

OFFICIAL_REFERENCE_BATCH = 256


class Autoencoder(TrainedExtractor):
    """Latents ``(N, D)`` in evaluation mode; D is 64 for MNIST and Fashion-MNIST, else 128.

    For the real MNIST and Fashion-MNIST, resized to 32x32 bilinearly, the weights are those
    published with FSVAE's code, if they are under the data root (``fad/stat_checkpoints``) or given
    as ``--weights fad_mnist=PATH`` or ``fad_fashion_mnist=PATH``. Otherwise the suite trains the
    autoencoder on the training images. Weights of a reference that a run was given take precedence
    over both. The description says which weights are in use. Images are neither resized nor
    quantised.
    """

    cell_name = "fad_autoencoder"
    version = VERSION
    weight_files = tuple(WEIGHT_FILES.values())

    @classmethod
    def training_fields(cls, protocol: Protocol) -> tuple[str, ...] | None:
        """Return the fields of images and training; None if the network cannot take the images."""
        if protocol.image_size not in PADDED_SIZE:
            return None
        return (
            "image_size",
            "center_crop",
            "interpolation",
            "train_images",
            "autoencoder_epochs",
            "autoencoder_batch_size",
        )

    @classmethod
    def training_content(
        cls, dataset: str, fingerprint: str, protocol: Protocol, train_images: int
    ) -> Mapping[str, Any] | None:
        """Return everything that the weights depend on; None if the network cannot take the images.

        Args:
            dataset: name of the dataset.
            fingerprint: hash of the dataset's content.
            protocol: protocol, resolved for the model and dataset.
            train_images: number of training images.
        """
        if protocol.image_size not in PADDED_SIZE:
            return None
        return training_content(fingerprint, protocol, train_images, _latent_size(dataset))

    @classmethod
    def keep(cls, weights: TrainedWeights, resources: Resources) -> None:
        """Put the weights into the cache, unless it has an entry for them."""
        keep_trained(weights, resources.cache)

    def __init__(self, context: ExtractorContext) -> None:
        """Load the weights of the reference or the published ones, or train.

        Raises:
            SkippedError: the images are not 28x28, 32x32 or 64x64.
            BenchError: the file of the weights has the wrong checksum.
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
        protocol, size = context.protocol, context.protocol.image_size
        content = _content(context)
        if content is None:
            raise SkippedError(
                f"the autoencoder is built for 28x28, 32x32 and 64x64 images, not {size}x{size}: "
                "set image_size in the protocol"
            )
        self._device = context.device
        published = _published_weights(context)
        if published is None:
            given = self.reference_weights(context.resources, content)
            self.weights = given or trained_autoencoder(context, content, self.cell_name)
            tensors, self.sha256 = self.weights.tensors, self.weights.sha256
            images, epochs = len(context.train_images), protocol.autoencoder_epochs
            origin = f"trained on {images} images, {epochs} epochs"
        else:
            tensors = torch.load(published, map_location=context.device, weights_only=True)
            self.sha256 = PUBLISHED[context.dataset].weights_sha256
            origin = f"published, {PUBLISHED[context.dataset].weights.name}"
        latent_size = _latent_size(context.dataset)
        self._network = fresh_network(context, latent_size)
        self._network.load_state_dict(tensors)
        self._network.eval()
        padded = PADDED_SIZE[size]
        padding = f" padded to {padded}x{padded} with -1" if padded != size else ""
        self.description = (
            f"autoencoder ({origin}), {latent_size} latents, {size}x{size}{padding}, not resized, "
            f"not quantised, {mode}"
        )


class OfficialAutoencoder(Autoencoder):
    """Latents ``(N, D)`` in training mode, as the official code of FSVAE and ESVAE computes them.

    That code never puts the autoencoder in evaluation mode, so batch norm uses the statistics of
    each batch, and the latent of an image depends on the other images of its batch. Generated
    images are encoded in batches of the protocol's ``official_fad_batch_size``, reference images in
    batches of 256, in order.

    Attributes:
        statistics: published mean ``(D,)`` and covariance ``(D, D)`` of the latents of the whole
            test set; None if the weights are not the published ones, the reference is not the test
            split, or the file is not under the data root (``fad/stats``).
    """

    reference_batch = OFFICIAL_REFERENCE_BATCH

    def __init__(self, context: ExtractorContext) -> None:
        """Load the weights of the reference, or the published weights and statistics, or train.

        Raises:
            SkippedError: the images are not 28x28, 32x32 or 64x64.
            BenchError: a file has the wrong checksum.
        """
        self.generated_batch = context.protocol.official_fad_batch_size
        published = _published_weights(context)
        self.statistics = published_statistics(context) if published else None
        computed = f"reference in batches of {OFFICIAL_REFERENCE_BATCH}"
        reference = "published reference statistics" if self.statistics else computed
        self._load(context, f"batch statistics, {reference}")
        for module in self._network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Without running statistics, batch norm always uses the batch's.
                module.track_running_stats = False
                module.running_mean = module.running_var = None


def _latent_size(dataset: str) -> int:
    # Chosen by name, so that a file that replaces MNIST is measured with as many latents.
    return 64 if dataset in PUBLISHED else 128


def _content(context: ExtractorContext) -> Mapping[str, Any] | None:
    arguments = (context.dataset, context.fingerprint, context.protocol)
    return Autoencoder.training_content(*arguments, len(context.train_images))


def _published_weights(context: ExtractorContext) -> Path | None:
    """Return the file of the published weights; None if the reference's weights are in use."""
    given = Autoencoder.reference_file(context.resources, _content(context))
    return None if given else published_weights(context)
