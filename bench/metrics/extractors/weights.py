"""Weight files of extractors: given by hand, cached, or fetched once and checked."""

import os
from pathlib import Path

import torch

from bench.errors import SkippedError, one_line
from bench.system.files import file_sha256
from bench.system.network import NETWORK_TIMEOUT_SECONDS, network_timeout
from bench.system.paths import Resources

# Many cells of a run ask for the same file: without a network, each would wait for the timeout.
_failures: dict[tuple[str, Path], str] = {}


def weight_file(resources: Resources, name: str, variable: str, url: str, sha256: str) -> Path:
    """The file that holds an extractor's weights.

    One given by hand counts as what it is; one from the cache or the network must have the known
    checksum. A fetch that failed is not tried again in the same process.

    Args:
        setting: of the cell; what is given by hand as ``name`` comes first, its cache last.
        name: what the file is for, as in ``--weights NAME=PATH``.
        variable: environment variable that may hold its path.
        url: where to fetch it.
        sha256: its SHA-256 in hex, or the first digits of it.

    Raises:
        SkippedError: there is no such file, it cannot be fetched, or it has another checksum.
    """
    given = resources.weights.get(name)
    if given is not None:
        return given
    if os.environ.get(variable):
        return _from_variable(variable)
    target = resources.cache / "weights" / url.rsplit("/", 1)[-1]
    if not _is_whole(target, sha256):
        reason = _failures.get((url, target)) or _fetch(url, target, sha256)
        if reason:
            _failures[url, target] = reason
            raise SkippedError(
                f"no weights {name!r} here, and {reason}: give the file with --weights "
                f"{name}=PATH or in the environment variable {variable}"
            )
    return target


def _from_variable(variable: str) -> Path:
    path = Path(os.environ[variable]).expanduser()
    if not path.is_file():
        raise SkippedError(f"the environment variable {variable} names {path}: no such file")
    return path


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path).startswith(sha256)
    except OSError:
        return False


def _fetch(url: str, target: Path, sha256: str) -> str | None:
    """Download the file, which appears whole or not at all; the reason if that failed."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with network_timeout(NETWORK_TIMEOUT_SECONDS):
            torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256, progress=False)
    except RuntimeError as error:
        return f"{url} is not what it should be ({one_line(error)})"
    except OSError as error:
        return f"{url} cannot be fetched to {target.parent} ({one_line(error)})"
    return None
