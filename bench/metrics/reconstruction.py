"""How well test images are reconstructed."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from bench.metrics.metric import Batch, Facts, Metric, Observation
from bench.metrics.uncertainty import interval
from bench.protocol import Protocol
from bench.store.schema import MAIN_VIEWS, VIEWS, Headline

PEAK_TO_PEAK = 2.0
SSIM_WINDOW = 11


class ImageMean:
    """Mean of one number an image, with its 95 % interval, summed up batch by batch in float64.

    Batches merge by the pairwise update of Chan, Golub and LeVeque (1983).

    Attributes:
        n: how many images.
        mean: of their numbers.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = 0.0
        self._squares = 0.0

    def update(self, values: Tensor) -> None:
        """Add the numbers ``(N,)`` of a batch."""
        values = values.double()
        n, total = len(values), self.n + len(values)
        mean = values.mean().item()
        shift = mean - self.mean
        self._squares += (values - mean).square().sum().item() + shift**2 * (self.n * n / total)
        self.mean += shift * (n / total)
        self.n = total

    @property
    def interval(self) -> tuple[float, float] | None:
        """``mean ± 1.96 s / sqrt(n)``, s the unbiased standard deviation; None below two images."""
        if self.n < 2:
            return None
        return interval(self.mean, math.sqrt(self._squares / (self.n - 1) / self.n))

    def observation(self, **where: Any) -> Observation:
        """The mean with its interval and n; ``where`` are the observation's other fields."""
        low, high = self.interval or (None, None)
        return Observation(self.mean, n=self.n, ci_low=low, ci_high=high, **where)


def squared_errors(images: Tensor, targets: Tensor) -> Tensor:
    """Each image's squared error, averaged over its values, ``(N,)`` in float64."""
    return (images.double() - targets.double()).square().flatten(1).mean(1)


def structural_similarities(images: Tensor, targets: Tensor) -> Tensor:
    """SSIM ``(N,)`` of images and targets ``(N, C, H, W)`` in [-1, 1], H and W at least 11.

    Wang et al. (2004): Gaussian window of 11 x 11 and standard deviation 1.5, K1 = 0.01,
    K2 = 0.03, variances with weights that sum to 1, and the mean over those windows that lie
    within the image and over its channels. In float32, which moves it by less than 1e-4.
    """
    # TF32 would leave three digits, of which the variances' cancellation leaves none.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
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
    """Mean squared error in [-1, 1] over every test image exactly once."""

    name = "reconstruction_loss"
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
        """Add each image's squared error, averaged over its values."""
        if batch.originals is not None:
            self._errors.update(squared_errors(batch.images, batch.originals))

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation, over all images."""
        yield self._errors.observation(split="test")


class AutoencoderReconstructionLoss(ReconstructionLoss):
    """Reconstruction loss of the autoencoder behind the Fréchet autoencoder distance.

    Observed in the autoencoder's own cell, on test images: how much its latents keep of them.
    """

    name = "autoencoder_reconstruction_loss"
    extractors = ("autoencoder",)
    selects_epochs = False


class PSNR(Metric):
    """Peak signal-to-noise ratio ``10 log10(4 / MSE)`` of each test image, averaged.

    The peak-to-peak range is the 2 of [-1, 1]. An image that is reconstructed without error has
    an infinite ratio, and so has the mean then: there is a reason in its place, and no cap.
    """

    name = "psnr"
    headline = Headline(20, "PSNR, dB", "test", ("report",))
    unit = "dB"
    higher_is_better = True
    tolerance = 0.02
    needs = frozenset({"reconstructions"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._ratios = ImageMean()
        self._perfect = 0

    def update(self, batch: Batch) -> None:
        """Add each image's ratio."""
        if batch.originals is not None:
            errors = squared_errors(batch.images, batch.originals)
            self._perfect += int((errors == 0).sum())
            self._ratios.update(10 * torch.log10(PEAK_TO_PEAK**2 / errors))

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation, over all images."""
        if self._perfect:
            n = self._ratios.n
            reason = f"infinite: {self._perfect} of {n} images are reconstructed without error"
            yield Observation(None, n=n, split="test", status="not_applicable", reason=reason)
            return
        yield self._ratios.observation(split="test")


class SSIM(Metric):
    """Structural similarity of each test image and its reconstruction, averaged; 1 is identical.

    See :func:`structural_similarities` for the window and the borders.
    """

    name = "ssim"
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
        """Add each image's similarity."""
        self._size = tuple(batch.images.shape[2:])
        if batch.originals is not None and min(self._size) >= SSIM_WINDOW:
            self._similarities.update(structural_similarities(batch.images, batch.originals))

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation, over all images."""
        if min(self._size) < SSIM_WINDOW:
            size = "x".join(map(str, self._size))
            reason = (
                f"images of {size} pixels do not hold the window of {SSIM_WINDOW}x{SSIM_WINDOW}"
            )
            yield Observation(None, split="test", status="not_applicable", reason=reason)
            return
        yield self._similarities.observation(split="test")


class OfficialReconstructionLoss(Metric):
    """Mean of batch means of the squared error, batches cut as in the paper's official code.

    FSVAE's code weighs an incomplete last batch like a full one; ESVAE's leaves it out. Where the
    protocol names no such batching, the metric does not apply.
    """

    name = "reconstruction_loss_official"
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
        """Add the images to the official batch that is open, closing it when it is full."""
        if batch.originals is None or self._batching is None:
            return
        for error in squared_errors(batch.images, batch.originals).tolist():
            self._open_sum += error
            self._open_n += 1
            if self._open_n == self._batching.size:
                self._close()

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation, over the batches that the official code scores."""
        if self._batching is None:
            reason = "the protocol names no official_test_batching"
            yield Observation(None, split="test", status="not_applicable", reason=reason)
            return
        if self._open_n and not self._batching.drop_last:
            self._close()
        if not self._batches:
            reason = f"fewer than {self._batching.size} test images, so no batch is left"
            yield Observation(None, split="test", status="not_applicable", reason=reason)
            return
        yield Observation(self._sum_of_means / self._batches, n=self._n, split="test")

    def _close(self) -> None:
        self._sum_of_means += self._open_sum / self._open_n
        self._batches += 1
        self._n += self._open_n
        self._open_sum, self._open_n = 0.0, 0
