"""Base class of extractors whose weights are a file that can be downloaded."""

from pathlib import Path
from typing import ClassVar

from bench.errors import SkippedError
from bench.metrics.extractors.extractor import Extractor
from bench.metrics.extractors.weights import DownloadedWeights
from bench.system.paths import Resources


class WeightedExtractor(Extractor):
    """An extractor whose weights are one file.

    Attributes:
        weight_files: the file.
    """

    weight_files: ClassVar[tuple[DownloadedWeights, ...]]

    @classmethod
    def unavailable(cls, resources: Resources) -> str | None:
        """Return why the weights are missing and cannot be downloaded, or None."""
        try:
            cls._weights(resources)
        except SkippedError as error:
            return str(error)
        return None

    @classmethod
    def _weights(cls, resources: Resources) -> Path:
        """Return the file with the weights, downloading it if necessary.

        Raises:
            SkippedError: the file is missing and cannot be downloaded.
        """
        (file,) = cls.weight_files
        return file.obtain(resources)
