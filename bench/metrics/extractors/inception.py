"""Inception v3 with the preprocessings that published scores use.

FID and KID use the network of 2015-12-05, with TensorFlow's weights as converted by torch-fidelity.
The Inception score of the official code of FSVAE and ESVAE uses torchvision's network.
"""

import io
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import one_line
from bench.metrics.extractors.extractor import ExtractorContext, Features
from bench.metrics.extractors.pixels import quantised, rgb_pixels
from bench.metrics.extractors.weighted import WeightedExtractor
from bench.metrics.extractors.weights import DownloadedWeights
from bench.system.files import file_sha256

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

# The addresses are torch-fidelity's and torchvision's, which take seconds to import.
INCEPTION = DownloadedWeights(
    name="inception",
    variable="BENCH_INCEPTION_WEIGHTS",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d",
)
TORCHVISION = DownloadedWeights(
    name="inception_torchvision",
    variable="BENCH_INCEPTION_TORCHVISION_WEIGHTS",
    url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
    sha256="0cc3c7bd",
)
NETWORK = "Inception v3 of 2015-12-05 (torch-fidelity)"
SIDE = 299
# The activations of the first layers take about 30 MB per image.
IMAGES_AT_ONCE = 32


class _Inception(WeightedExtractor):
    """The network of 2015-12-05: 2,048 pool features, and 1,008 logits without the bias."""

    weight_files = (INCEPTION,)

    def __init__(self, context: ExtractorContext) -> None:
        """Load the weights ``inception``.

        Raises:
            SkippedError: the weights are missing; the message says how to provide them.
            ValueError: the file contains something else.
        """
        path = self._weights(context.resources)
        self._device = context.device
        self._network = _torch_fidelity_network(path).to(context.device)
        self.sha256 = file_sha256(path)

    def __call__(self, images: Tensor) -> Features:
        """Compute pool features ``(N, 2048)`` and logits ``(N, 1008)``.

        Args:
            images: images ``(N, C, H, W)`` in [-1, 1], with 1 or 3 channels, on any device.

        Raises:
            ValueError: the images have neither 1 nor 3 channels, or a value is not finite.
        """
        outputs = []
        with torch.no_grad():
            for part in images.split(IMAGES_AT_ONCE):
                outputs.append(self._run(rgb_pixels(part.to(self._device))))
        pools, logits = zip(*outputs, strict=True)
        return Features(torch.cat(pools).cpu(), torch.cat(logits).cpu())

    @abstractmethod
    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return pool features and logits of pixels ``(N, 3, H, W)`` in 0..255."""


class InceptionTorchFidelity(_Inception):
    """The preprocessing of torch-fidelity: 8 bits, then TensorFlow 1's bilinear resize."""

    description = f"{NETWORK}, 8 bits, TensorFlow 1 bilinear resize to 299x299"

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pool, logits = self._network(quantised(pixels))
        return pool, logits


class _Resized(_Inception):
    """The network on images that were resized before."""

    def _run_resized(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on pixels ``(N, 3, 299, 299)`` in 0..255, without its own resize.

        The network resizes in its forward pass, so a hook replaces the input of its first layer.
        """
        first = self._network.Conv2d_1a_3x3
        hook = first.register_forward_pre_hook(lambda layer, inputs: ((pixels - 128) / 128,))
        try:
            pool, logits = self._network(pixels.new_zeros((1, 3, 1, 1), dtype=torch.uint8))
        finally:
            hook.remove()
        return pool, logits


class InceptionCleanFloat(_Resized):
    """The preprocessing of clean-fid for a generator's images: clean-fid's resize, not quantised.

    The official code of FSVAE and ESVAE uses it. The reference images are the protocol's
    ``official_fid_split``.
    """

    description = f"{NETWORK}, not quantised, clean-fid bicubic resize to 299x299"
    same_of_bytes = "inception_clean"

    def __init__(self, context: ExtractorContext) -> None:
        """Load the network's weights.

        Raises:
            SkippedError: the weights are missing.
        """
        super().__init__(context)
        self.reference_split = context.protocol.official_fid_split

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self._run_resized(_clean_resized(pixels))


class InceptionClean(_Resized):
    """The preprocessing of clean-fid for image files: 8 bits, then clean-fid's resize.

    Parmar et al. (arXiv:2104.11222).
    """

    description = f"{NETWORK}, 8 bits, clean-fid bicubic resize to 299x299"

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self._run_resized(_clean_resized(quantised(pixels)))


class InceptionTorchvision(WeightedExtractor):
    """torchvision's Inception v3, as FSVAE's and ESVAE's code uses it for the Inception score.

    The network expects normalised images, but that code feeds raw pixels in 0..255, and so does
    this extractor. It returns logits of 1,000 ImageNet classes, and these as pool features too.
    """

    weight_files = (TORCHVISION,)
    description = (
        "Inception v3 (torchvision, ImageNet), not quantised, bilinear resize to 299x299, "
        "raw 0..255 input"
    )

    def __init__(self, context: ExtractorContext) -> None:
        """Load the weights ``inception_torchvision``.

        Raises:
            SkippedError: the weights are missing; the message says how to provide them.
            ValueError: the file contains something else.
        """
        from torchvision.models import inception_v3

        path = self._weights(context.resources)
        network = inception_v3(weights=None, transform_input=False, init_weights=False)
        load_weights(network, path)
        self._device = context.device
        self._network = network.eval().to(context.device)
        self.sha256 = file_sha256(path)

    def __call__(self, images: Tensor) -> Features:
        """Compute logits ``(N, 1000)``.

        Args:
            images: images ``(N, C, H, W)`` in [-1, 1], with 1 or 3 channels, on any device.

        Raises:
            ValueError: the images have neither 1 nor 3 channels, or a value is not finite.
        """
        outputs = []
        with torch.no_grad():
            for part in images.split(IMAGES_AT_ONCE):
                pixels = rgb_pixels(part.to(self._device))
                outputs.append(self._network(F.interpolate(pixels, (SIDE, SIDE), mode="bilinear")))
        logits = torch.cat(outputs).cpu()
        return Features(logits, logits)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict from a file of tensors; the file cannot run code.

    Raises:
        ValueError: the file contains something else than the network's weights.
    """
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        name = type(network).__name__
        raise ValueError(f"{path} does not contain weights of {name}: {one_line(error)}") from error


def _torch_fidelity_network(path: Path) -> "FeatureExtractorInceptionV3":
    """Build the network with weights from a file, without torch-fidelity's unsafe unpickling."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        plain = io.BytesIO()
        torch.save(state, plain)
        plain.seek(0)
        return FeatureExtractorInceptionV3(
            INCEPTION.name, ["2048", "logits_unbiased"], feature_extractor_weights_path=plain
        )
    except Exception as error:
        raise ValueError(
            f"{path} does not contain weights of {NETWORK}: {one_line(error)}"
        ) from error


def _clean_resized(pixels: Tensor) -> Tensor:
    """Resize pixels ``(N, 3, H, W)`` as clean-fid does, to float32 ``(N, 3, 299, 299)``."""
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    resized = [resize(image) for image in pixels.permute(0, 2, 3, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(pixels.device)
