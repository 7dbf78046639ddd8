"""Quality of the reconstructions of test images."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from bench.metrics.metric import Batch, Metric, ModelFacts, Observation
from bench.metrics.uncertainty import interval
from bench.protocol import Protocol
from bench.store.schema import MAIN_VIEWS, NOT_NEGATIVE, VIEWS, Headline
from bench.system.devices import tf32

PEAK_TO_PEAK = 2.0
SSIM_WINDOW = 11


class ImageMean:
    """Mean of one number per image with its 95 % interval, accumulated batch by batch in float64.

    Batches are merged by the pairwise update of Chan, Golub and LeVeque (1983).

    Attributes:
        n: number of images.
        mean: mean over the images; 0 before the first.

    >>> errors = ImageMean()
    >>> errors.update(torch.tensor([1.0, 2.0]))
    >>> errors.update(torch.tensor([3.0]))
    >>> errors.mean, errors.n
    (2.0, 3)
    >>> low, high = errors.interval
    >>> round(low, 3), round(high, 3)
    (0.868, 3.132)
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = 0.0
        self._squares = 0.0

    def update(self, values: Tensor) -> None:
        """Add one number per image of a batch, ``(N,)``."""
        values = values.double()
        n, total = len(values), self.n + len(values)
        mean = values.mean().item()
        shift = mean - self.mean
        self._squares += (values - mean).square().sum().item() + shift**2 * (self.n * n / total)
        self.mean += shift * (n / total)
        self.n = total

    @property
    def interval(self) -> tuple[float, float] | None:
        """``mean ± 1.96 s / sqrt(n)`` with the unbiased deviation s; None below two images."""
        if self.n < 2:
            return None
        return interval(self.mean, math.sqrt(self._squares / (self.n - 1) / self.n))

    def observation(self, **where: Any) -> Observation:
        """Return the mean with its interval and n as an observation.

        Args:
            **where: further fields of the observation, such as ``split``.
        """
        low, high = self.interval or (None, None)
        return Observation(self.mean, n=self.n, ci_low=low, ci_high=high, **where)


def squared_errors(images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error of each image.

    Args:
        images: images ``(N, C, H, W)``.
        targets: images ``(N, C, H, W)`` to compare with.

    Returns:
        Float64 ``(N,)``.

    >>> squared_errors(torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]]]))
    tensor([5.], dtype=torch.float64)
    """
    return (images.double() - targets.double()).square().flatten(1).mean(1)


def structural_similarities(images: Tensor, targets: Tensor) -> Tensor:
    """Return the structural similarity of each image and its target (Wang et al. 2004).

    Gaussian window of 11 x 11 with standard deviation 1.5, K1 = 0.01, K2 = 0.03 and weights that
    sum to 1; the mean over the channels and over all windows within the image. Computed in float32,
    whose rounding moves it by less than 1e-4.

    Args:
        images: images ``(N, C, H, W)`` in [-1, 1], H and W at least 11.
        targets: images ``(N, C, H, W)`` in [-1, 1] to compare with.

    Returns:
        Float32 ``(N,)``, at most 1, which is reached by identical images.

    >>> white, black = torch.ones(1, 1, 11, 11), -torch.ones(1, 1, 11, 11)
    >>> structural_similarities(white, white)
    tensor([1.])
    >>> structural_similarities(white, black).item() < 0
    True
    """
    # TF32 keeps three digits, and the subtraction in the variances cancels all of them.
    with tf32(False):
        _, similarities = structural_similarity_index_measure(
            images.float(),
            targets.float(),
            sigma=1.5,
            kernel_size=SSIM_WINDOW,
            reduction="none",
            data_range=PEAK_TO_PEAK,
            return_full_image=True,
        )
    border = SSIM_WINDOW // 2
    return similarities[..., border:-border, border:-border].flatten(1).mean(1)


class ReconstructionLoss(Metric):
    """Mean squared error of reconstructions of all test images, of values in [-1, 1].

    0 or more, lower is better. Every image counts once.
    """

    name = "reconstruction_loss"
    bounds = NOT_NEGATIVE
    headline = Headline(10, "reconstruction loss", "test", VIEWS, "recon. loss")
    unit = "1"
    higher_is_better = False
    tolerance = 0.02
    needs = frozenset({"reconstructions"})
    selects_epochs = True

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._errors = ImageMean()

    def update(self, batch: Batch) -> None:
        """Add the mean squared error of each image."""
        if batch.originals is not None:
            self._errors.update(squared_errors(batch.images, batch.originals))

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation, over all images."""
        yield self._errors.observation(split="test")


class AutoencoderReconstructionLoss(ReconstructionLoss):
    """Reconstruction loss of the autoencoder behind the Fréchet autoencoder distance.

    Observed in the autoencoder's own cell, on test images; lower is better. It shows how much of an
    image the autoencoder's latents keep.
    """

    name = "autoencoder_reconstruction_loss"
    extractors = ("autoencoder",)
    selects_epochs = False


class PSNR(Metric):
    """Peak signal-to-noise ratio ``10 log10(4 / MSE)`` of each test image, averaged over images.

    In dB, higher is better; 4 is the square of the range of [-1, 1]. The ratio of an image that is
    reconstructed without error is infinite. It is not capped: there is then no mean, and the
    observation has the reason.
    """

    name = "psnr"
    label = "PSNR"
    headline = Headline(20, "PSNR", "test", ("report",))
    unit = "dB"
    higher_is_better = True
    tolerance = 0.02
    needs = frozenset({"reconstructions"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._ratios = ImageMean()
        self._perfect = 0

    def update(self, batch: Batch) -> None:
        """Add the ratio of each image."""
        if batch.originals is not None:
            errors = squared_errors(batch.images, batch.originals)
            self._perfect += int((errors == 0).sum())
            self._ratios.update(10 * torch.log10(PEAK_TO_PEAK**2 / errors))

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation, over all images."""
        if self._perfect:
            n = self._ratios.n
            reason = f"infinite: {self._perfect} of {n} images are reconstructed without error"
            yield Observation(None, n=n, split="test", status="not_applicable", reason=reason)
            return
        yield self._ratios.observation(split="test")


class SSIM(Metric):
    """Structural similarity (Wang et al. 2004) of test images and reconstructions, averaged.

    At most 1, which means identical; higher is better. :func:`structural_similarities` gives the
    window and the constants.
    """

    name = "ssim"
    label = "SSIM"
    bounds = -1.0, 1.0
    headline = Headline(30, "SSIM", "test", MAIN_VIEWS)
    unit = "1"
    higher_is_better = True
    tolerance = 0.02
    needs = frozenset({"reconstructions"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._similarities = ImageMean()
        self._size: tuple[int, ...] = ()

    def update(self, batch: Batch) -> None:
        """Add the similarity of each image."""
        self._size = tuple(batch.images.shape[2:])
        if batch.originals is not None and min(self._size) >= SSIM_WINDOW:
            self._similarities.update(structural_similarities(batch.images, batch.originals))

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation, over all images."""
        if min(self._size) < SSIM_WINDOW:
            size = "x".join(map(str, self._size))
            window = f"{SSIM_WINDOW}x{SSIM_WINDOW}"
            reason = f"images of {size} pixels are smaller than the window of {window}"
            yield Observation(None, split="test", status="not_applicable", reason=reason)
            return
        yield self._similarities.observation(split="test")


class OfficialReconstructionLoss(Metric):
    """Mean over batches of the mean squared error, with the batches of the paper's official code.

    0 or more, lower is better. FSVAE's code gives an incomplete last batch the weight of a full
    one; ESVAE's code drops it. Not applicable if the protocol has no ``official_test_batching``.
    """

    name = "reconstruction_loss_official"
    label = "reconstruction loss, papers' code"
    bounds = NOT_NEGATIVE
    selects_epochs = True
    unit = "1"
    higher_is_better = False
    tolerance = 0.02
    needs = frozenset({"reconstructions"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._batching = protocol.official_test_batching
        self._sum_of_means = 0.0
        self._batches = 0
        self._n = 0
        self._open_sum = 0.0
        self._open_n = 0

    def update(self, batch: Batch) -> None:
        """Add the images to the current official batch, and start a new one when it is full."""
        if batch.originals is None or self._batching is None:
            return
        for error in squared_errors(batch.images, batch.originals).tolist():
            self._open_sum += error
            self._open_n += 1
            if self._open_n == self._batching.size:
                self._close()

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation, over the batches that the official code scores."""
        if self._batching is None:
            reason = "the protocol has no official_test_batching"
            yield Observation(None, split="test", status="not_applicable", reason=reason)
            return
        if self._open_n and not self._batching.drop_last:
            self._close()
        if not self._batches:
            reason = f"fewer than {self._batching.size} test images, so no batch is complete"
            yield Observation(None, split="test", status="not_applicable", reason=reason)
            return
        yield Observation(self._sum_of_means / self._batches, n=self._n, split="test")

    def _close(self) -> None:
        self._sum_of_means += self._open_sum / self._open_n
        self._batches += 1
        self._n += self._open_n
        self._open_sum, self._open_n = 0.0, 0
