"""Weight files of extractors: given by the user, cached, or downloaded once and verified."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch

from bench.errors import SkippedError, one_line
from bench.system.files import file_sha256
from bench.system.network import (
    NETWORK_TIMEOUT_SECONDS,
    OFFLINE_REASON,
    network_timeout,
    offline,
)
from bench.system.paths import Resources

# Downloads that failed. Many cells ask for the same file, and each would wait for the timeout.
_failures: dict[tuple[str, Path], str] = {}


@dataclass(frozen=True, kw_only=True)
class WeightFile(ABC):
    """A file of network weights that an extractor loads.

    Attributes:
        name: name of the weights, as in ``--weights NAME=PATH``.
        sha256: SHA-256 of the file in hex, or its first digits.
        variable: name of the environment variable that can hold the path; None if there is none.
        checks_given: whether a file given by its path must have the same SHA-256.
    """

    name: str
    sha256: str
    variable: str | None = None
    checks_given: ClassVar[bool] = True

    @property
    @abstractmethod
    def advice(self) -> str:
        """Sentences that say how to get the file."""

    @abstractmethod
    def default_path(self, resources: Resources) -> Path:
        """Return where the file is looked for unless its path is given."""

    def given_path(self, resources: Resources) -> Path | None:
        """Return the path given with ``--weights`` or in the environment variable, if any."""
        if self.name in resources.weights:
            return resources.weights[self.name]
        named = os.environ.get(self.variable) if self.variable else None
        return Path(named).expanduser() if named else None

    def path(self, resources: Resources) -> Path:
        """Return the given path, or else the default one."""
        return self.given_path(resources) or self.default_path(resources)

    def problem(self, resources: Resources) -> str | None:
        """Return why the file cannot be used as it is, or None. Downloads nothing."""
        path = self.path(resources)
        try:
            sha256 = known_sha256(path)
        except FileNotFoundError:
            return f"{path} does not exist"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        checked = self.checks_given or path == self.default_path(resources)
        if checked and not sha256.startswith(self.sha256):
            return f"{path} is damaged (SHA-256 {sha256}, expected {self.sha256})"
        return None


@dataclass(frozen=True, kw_only=True)
class DownloadedWeights(WeightFile):
    """A weight file that is downloaded once and then kept in the cache.

    A file given by its path can contain other weights.

    Attributes:
        url: address to download the file from.
        cached_as: name of the file in the cache; empty for the last part of the address.
        large: size of a file that no run downloads, only ``bench weights fetch``, such as
            ``1.2 GB``; empty for a file that a run downloads when a metric needs it.
    """

    url: str
    cached_as: str = ""
    large: str = ""
    checks_given: ClassVar[bool] = False

    @property
    def advice(self) -> str:
        """Sentences that say how to get the file with and without a network."""
        fetch = f"`bench weights fetch {self.name}`"
        means = (
            f"{fetch} downloads it ({self.large}; no run does)"
            if self.large
            else f"A run that needs it, or {fetch}, downloads it"
        )
        return (
            f"{means} from {self.url} (SHA-256 {self.sha256[:8]}...). Without a network, give the "
            f"file with --weights {self.name}=FILE or in the environment variable {self.variable}."
        )

    def default_path(self, resources: Resources) -> Path:
        """Return the path of the file in the cache."""
        return resources.cache / "weights" / (self.cached_as or self.url.rsplit("/", 1)[-1])

    def obtain(self, resources: Resources, asked: bool = False) -> Path:
        """Return the path of the file, downloading the file if necessary.

        A download that failed is not tried again in the same process.

        Args:
            resources: weight files given by the user, and the cache folder.
            asked: whether the user asked for this download, so that a large file is downloaded too.

        Raises:
            SkippedError: the file named by the variable does not exist, downloads are forbidden,
                the file is large, the download failed, or its checksum is wrong.
        """
        given = self.given_path(resources)
        if given is not None:
            if not given.is_file():
                raise SkippedError(
                    f"the environment variable {self.variable} names {given}, which is not a file"
                )
            return given
        target = self.default_path(resources)
        if self.problem(resources):
            reason = self._forbidden(asked) or self._downloaded(target)
            if reason:
                raise SkippedError(
                    f"the weights {self.name!r} are missing, and {reason}: give the file with "
                    f"--weights {self.name}=PATH or in the environment variable {self.variable}"
                )
        return target

    def _forbidden(self, asked: bool) -> str | None:
        """Return why the file must not be downloaded now, or None."""
        if offline():
            return OFFLINE_REASON
        if self.large and not asked:
            return f"no run downloads {self.large}, `bench weights fetch {self.name}` does"
        return None

    def _downloaded(self, target: Path) -> str | None:
        """Download the file unless that failed before; return the reason if it fails, else None."""
        if (self.url, target) not in _failures:
            reason = self._download(target)
            if reason is None:
                return None
            _failures[self.url, target] = reason
        return _failures[self.url, target]

    def _download(self, target: Path) -> str | None:
        """Download the file atomically; return the reason if that failed, else None."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with network_timeout(NETWORK_TIMEOUT_SECONDS):
                torch.hub.download_url_to_file(
                    self.url, str(target), hash_prefix=self.sha256, progress=False
                )
        except RuntimeError as error:
            return f"the download of {self.url} has the wrong checksum ({one_line(error)})"
        except OSError as error:
            return f"{self.url} cannot be downloaded to {target.parent} ({one_line(error)})"
        return None


def known_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits, computed once until the file changes.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _sha256_of(path: Path, size: int, modified: int) -> str:
    return file_sha256(path)
