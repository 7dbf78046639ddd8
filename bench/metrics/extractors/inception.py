"""Inception v3 under the preprocessings that published scores were made with.

The network of FID and KID is the one of 2015-12-05 as torch-fidelity holds it, whose weights were
converted from TensorFlow's; the network of the papers' Inception score is torchvision's.
"""

import io
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import SkippedError, one_line
from bench.metrics.extractors.extractor import Extractor, Features, Setting
from bench.metrics.extractors.pixels import quantised, rgb_pixels
from bench.metrics.extractors.weights import DownloadedWeights
from bench.system.files import file_sha256
from bench.system.paths import Resources

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
# The first layers hold some 30 MB an image.
IMAGES_AT_ONCE = 32


class _Weighted(Extractor):
    """An extractor whose weights are a file."""

    weight_files: ClassVar[tuple[DownloadedWeights, ...]]

    @classmethod
    def unavailable(cls, resources: Resources) -> str | None:
        """Why the weights are not here, and cannot be fetched."""
        try:
            cls._weights(resources)
        except SkippedError as error:
            return str(error)
        return None

    @classmethod
    def _weights(cls, resources: Resources) -> Path:
        """The file of the weights.

        Raises:
            SkippedError: it is not here.
        """
        (file,) = cls.weight_files
        return file.obtain(resources)


class _Inception(_Weighted):
    """The network of 2015-12-05: 2,048 pool features and 1,008 logits without their bias."""

    weight_files = (INCEPTION,)

    def __init__(self, setting: Setting) -> None:
        """Load the weights ``inception``.

        Raises:
            SkippedError: they are not here; says the ways out.
            ValueError: the file holds something else.
        """
        path = self._weights(setting.resources)
        self._device = setting.device
        self._network = _torch_fidelity_network(path).to(setting.device)
        self.sha256 = file_sha256(path)

    def __call__(self, images: Tensor) -> Features:
        """Pool features ``(N, 2048)`` and logits ``(N, 1008)`` of images in [-1, 1].

        Raises:
            ValueError: neither one nor three channels, or values that are not finite.
        """
        found = []
        with torch.no_grad():
            for part in images.split(IMAGES_AT_ONCE):
                found.append(self._run(rgb_pixels(part.to(self._device))))
        pools, logits = zip(*found, strict=True)
        return Features(torch.cat(pools).cpu(), torch.cat(logits).cpu())

    @abstractmethod
    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pool features and logits of pixels ``(N, 3, H, W)`` in 0..255."""


class InceptionTorchFidelity(_Inception):
    """As torch-fidelity: 8 bits, then TensorFlow 1's bilinear resize."""

    description = f"{NETWORK}, 8 bits, TensorFlow 1 bilinear resize to 299x299"

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pool, logits = self._network(quantised(pixels))
        return pool, logits


class InceptionCleanFloat(_Inception):
    """As clean-fid's on a generator's images, so in FSVAE's and ESVAE's code: not quantised."""

    description = f"{NETWORK}, not quantised, clean-fid bicubic resize to 299x299"

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self._run_resized(_clean_resized(pixels))

    def _run_resized(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The network on pixels ``(N, 3, 299, 299)`` in 0..255, past its own resize.

        The network resizes in its forward pass; its first layer is handed other input here.
        """
        first = self._network.Conv2d_1a_3x3
        hook = first.register_forward_pre_hook(lambda layer, inputs: ((pixels - 128) / 128,))
        try:
            pool, logits = self._network(pixels.new_zeros((1, 3, 1, 1), dtype=torch.uint8))
        finally:
            hook.remove()
        return pool, logits


class InceptionClean(InceptionCleanFloat):
    """As clean-fid on image files (Parmar et al., arXiv:2104.11222): 8 bits, then its resize."""

    description = f"{NETWORK}, 8 bits, clean-fid bicubic resize to 299x299"

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self._run_resized(_clean_resized(quantised(pixels)))


class InceptionTorchvision(_Weighted):
    """The network of FSVAE's and ESVAE's Inception score, on raw pixels in 0..255.

    torchvision's network expects normalised images; that code gives it none, and the score is
    reported as published. There are logits of 1,000 ImageNet classes; the pool features are they.
    """

    weight_files = (TORCHVISION,)
    description = (
        "Inception v3 (torchvision, ImageNet), not quantised, bilinear resize to 299x299, "
        "raw 0..255 input"
    )

    def __init__(self, setting: Setting) -> None:
        """Load the weights ``inception_torchvision``.

        Raises:
            SkippedError: they are not here; says the ways out.
            ValueError: the file holds something else.
        """
        from torchvision.models import inception_v3

        path = self._weights(setting.resources)
        network = inception_v3(weights=None, transform_input=False, init_weights=False)
        load_weights(network, path)
        self._device = setting.device
        self._network = network.eval().to(setting.device)
        self.sha256 = file_sha256(path)

    def __call__(self, images: Tensor) -> Features:
        """Logits ``(N, 1000)`` of images ``(N, C, H, W)`` in [-1, 1].

        Raises:
            ValueError: neither one nor three channels, or values that are not finite.
        """
        found = []
        with torch.no_grad():
            for part in images.split(IMAGES_AT_ONCE):
                pixels = rgb_pixels(part.to(self._device))
                found.append(self._network(F.interpolate(pixels, (SIDE, SIDE), mode="bilinear")))
        logits = torch.cat(found).cpu()
        return Features(logits, logits)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict from a file that may hold nothing but tensors.

    Raises:
        ValueError: it holds something else.
    """
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        name = type(network).__name__
        raise ValueError(f"{path} holds no weights of {name}: {one_line(error)}") from error


def _torch_fidelity_network(path: Path) -> "FeatureExtractorInceptionV3":
    """The network with the weights in a file, which torch-fidelity itself would unpickle."""
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
        raise ValueError(f"{path} holds no weights of {NETWORK}: {one_line(error)}") from error


def _clean_resized(pixels: Tensor) -> Tensor:
    """Pixels ``(N, 3, H, W)`` under clean-fid's resize, float32 ``(N, 3, 299, 299)``."""
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    resized = [resize(image) for image in pixels.permute(0, 2, 3, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(pixels.device)
