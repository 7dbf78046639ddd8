"""DINOv2's ViT-L/14, whose features rank generated images as people do."""

import importlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import NotInstalledError, one_line
from bench.metrics.extractors.extractor import ExtractorContext, Features
from bench.metrics.extractors.pixels import quantised, rgb_pixels
from bench.metrics.extractors.weighted import WeightedExtractor
from bench.metrics.extractors.weights import DownloadedWeights, known_sha256
from bench.system.paths import Resources

# Meta's own file. Its SHA-256 is the one that Hugging Face's page of the file gives.
DINOV2 = DownloadedWeights(
    name="dinov2",
    variable="BENCH_DINOV2_WEIGHTS",
    url="https://huggingface.co/facebook/dinov2-large/resolve/"
    "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c/model.safetensors",
    sha256="399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
    cached_as="dinov2-large-399fba97.safetensors",
    large="1.2 GB",
)
NETWORK = "DINOv2 ViT-L/14"
SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Meta's code adds this to the number of patches per side before it divides by the old number.
POSITION_OFFSET = 0.1
INSTALL = "pip install 'spikegen-bench[dinov2]'"
# The activations of a block take about 10 MB per image.
IMAGES_AT_ONCE = 32

# Names of the tensors in Meta's file, and in timm's network.
RENAMED = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    (".attention.output.dense.", ".attn.proj."),
    (".layer_scale1.lambda1", ".ls1.gamma"),
    (".layer_scale2.lambda1", ".ls2.gamma"),
    ("layernorm.", "norm."),
)
QUERY = re.compile(r"(.*)\.attention\.attention\.query\.(weight|bias)")
KEY_VALUE = ("key", "value")
MASK = "embeddings.mask_token"


class DINOv2(WeightedExtractor):
    """DINOv2 ViT-L/14 (Oquab et al., arXiv:2304.07193): the class token, 1,024 features.

    The preprocessing is the default of the code of Stein et al. (arXiv:2306.04675): 8 bits,
    Pillow's bicubic resize to 224x224, ImageNet's mean and standard deviation. The network is
    timm's. Its positions are interpolated from 37x37 to 16x16 patches as Meta's code does it,
    unlike timm and transformers.

    Attributes:
        architecture: name of the network in timm.
        options: arguments of timm's network that replace the architecture's own.
    """

    weight_files = (DINOV2,)
    description = (
        f"{NETWORK} (timm), class token, 8 bits, Pillow bicubic resize to 224x224, positions "
        "interpolated as in Meta's code"
    )
    architecture: ClassVar[str] = "vit_large_patch14_dinov2"
    options: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def unavailable(cls, resources: Resources) -> str | None:
        """Return why the package or the weights are missing, or None. Downloads nothing."""
        try:
            _timm()
        except NotInstalledError as error:
            return str(error)
        return super().unavailable(resources)

    def __init__(self, context: ExtractorContext) -> None:
        """Load the weights ``dinov2``.

        Raises:
            NotInstalledError: timm is not installed; the message says how to install it.
            SkippedError: the weights are missing; the message says how to provide them.
            ValueError: the file contains something else.
        """
        network = self._empty_network()
        path = self._weights(context.resources)
        try:
            network.load_state_dict(_tensors(path), strict=True, assign=True)
        except Exception as error:
            raise ValueError(
                f"{path} does not contain weights of {NETWORK}: {one_line(error)}"
            ) from error
        self._device = context.device
        self._network = network.eval().to(context.device)
        self._mean = torch.tensor(MEAN, device=context.device)[:, None, None]
        self._deviation = torch.tensor(DEVIATION, device=context.device)[:, None, None]
        self.sha256 = known_sha256(path)

    def __call__(self, images: Tensor) -> Features:
        """Compute the class token ``(N, 1024)``.

        Args:
            images: images ``(N, C, H, W)`` in [-1, 1], with 1 or 3 channels, on any device.

        Raises:
            ValueError: the images have neither 1 nor 3 channels, or a value is not finite.
        """
        with torch.no_grad():
            tokens = [self._network(self._inputs(part)) for part in images.split(IMAGES_AT_ONCE)]
        return Features(torch.cat(tokens).cpu())

    def _inputs(self, images: Tensor) -> Tensor:
        """Return normalised pixels ``(N, 3, 224, 224)`` of images ``(N, C, H, W)``."""
        pixels = quantised(rgb_pixels(images)).permute(0, 2, 3, 1).cpu().numpy()
        size, bicubic = (SIDE, SIDE), Image.Resampling.BICUBIC
        resized = [np.asarray(Image.fromarray(image).resize(size, bicubic)) for image in pixels]
        values = torch.from_numpy(np.stack(resized)).to(self._device).permute(0, 3, 1, 2) / 255
        return (values - self._mean) / self._deviation

    @classmethod
    def _empty_network(cls) -> nn.Module:
        """Return the network without values, for which no random number is drawn.

        Raises:
            NotInstalledError: timm is not installed.
        """
        package = _timm()
        with torch.device("meta"):
            network: nn.Module = package.create_model(
                cls.architecture, pretrained=False, num_classes=0, img_size=SIDE, **cls.options
            )
        return network


def resampled_positions(positions: Tensor, side: int) -> Tensor:
    """Interpolate position embeddings to another number of patches as Meta's DINOv2 does.

    ``interpolate_pos_encoding`` of Meta's code: bicubic, without antialiasing, at steps of
    ``M / (side + 0.1)`` patches. timm and transformers use steps of ``M / side``, and timm
    antialiases.

    Args:
        positions: embeddings ``(1, 1 + M * M, D)`` of the class token and of M x M patches.
        side: number of patches per side of the result.

    Returns:
        Embeddings ``(1, 1 + side * side, D)``; unchanged if M is ``side``.

    Raises:
        ValueError: the patches do not form a square.
    """
    token, patches = positions[:, :1], positions[:, 1:]
    old = math.isqrt(patches.shape[1])
    if old * old != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} position embeddings are not a square of patches")
    if old == side:
        return positions
    grid = patches.unflatten(1, (old, old)).permute(0, 3, 1, 2)
    factor = (side + POSITION_OFFSET) / old
    resampled = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([token, resampled.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise NotInstalledError(f"the package timm is not installed: {INSTALL}") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, with timm's names; the file cannot run code.

    Raises:
        ValueError: the position embeddings have a wrong shape.
        KeyError: a tensor is missing.
    """
    stored = {name: value.float() for name, value in safetensors.torch.load_file(path).items()}
    tensors = stored if "pos_embed" in stored else _renamed(stored)
    patch = tensors["patch_embed.proj.weight"].shape[-1]
    tensors["pos_embed"] = resampled_positions(tensors["pos_embed"], SIDE // patch)
    return tensors


def _renamed(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of Meta's file under timm's names; queries, keys and values are one."""
    tensors = {}
    for name, value in stored.items():
        query = QUERY.fullmatch(name)
        if query:
            block, kind = query.groups()
            others = (stored[f"{block}.attention.attention.{each}.{kind}"] for each in KEY_VALUE)
            name, value = f"{block}.attn.qkv.{kind}", torch.cat([value, *others])
        elif name == MASK or ".attention.attention." in name:
            continue
        for ours, theirs in RENAMED:
            name = name.replace(ours, theirs)
        tensors[name] = value
    return tensors
