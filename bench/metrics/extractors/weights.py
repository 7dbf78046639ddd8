"""Weight files of extractors: given by the user, cached, or downloaded once and verified."""

import os
from pathlib import Path

import torch

from bench.errors import SkippedError, one_line
from bench.system.files import file_sha256
from bench.system.network import NETWORK_TIMEOUT_SECONDS, network_timeout
from bench.system.paths import Resources

# Downloads that failed. Many cells ask for the same file, and each would wait for the timeout.
_failures: dict[tuple[str, Path], str] = {}


def weight_file(resources: Resources, name: str, variable: str, url: str, sha256: str) -> Path:
    """Return the file with an extractor's weights, downloading it if necessary.

    In this order: the file given as ``--weights NAME=PATH``, the file in the environment variable,
    the cache, the URL. The checksum is verified for files from the cache and the URL only. A
    download that failed is not tried again in the same process.

    Args:
        resources: weight files given by the user, and the cache folder.
        name: name of the weights, as in ``--weights NAME=PATH``.
        variable: name of the environment variable that can hold the path.
        url: address to download the file from.
        sha256: SHA-256 of the file in hex, or its first digits.

    Raises:
        SkippedError: the file named by the variable does not exist, the download failed, or its
            checksum is wrong.
    """
    given = resources.weights.get(name)
    if given is not None:
        return given
    if os.environ.get(variable):
        return _from_variable(variable)
    target = resources.cache / "weights" / url.rsplit("/", 1)[-1]
    if not _is_complete(target, sha256):
        reason = _failures.get((url, target)) or _fetch(url, target, sha256)
        if reason:
            _failures[url, target] = reason
            raise SkippedError(
                f"the weights {name!r} are missing, and {reason}: give the file with --weights "
                f"{name}=PATH or in the environment variable {variable}"
            )
    return target


def _from_variable(variable: str) -> Path:
    path = Path(os.environ[variable]).expanduser()
    if not path.is_file():
        raise SkippedError(f"the environment variable {variable} names {path}, which is not a file")
    return path


def _is_complete(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path).startswith(sha256)
    except OSError:
        return False


def _fetch(url: str, target: Path, sha256: str) -> str | None:
    """Download the file atomically; return the reason if that failed, else None."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with network_timeout(NETWORK_TIMEOUT_SECONDS):
            torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256, progress=False)
    except RuntimeError as error:
        return f"the download of {url} has the wrong checksum ({one_line(error)})"
    except OSError as error:
        return f"{url} cannot be downloaded to {target.parent} ({one_line(error)})"
    return None
