"""Network access: whether it is allowed, its time limits, and which URLs are safe."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

NETWORK_TIMEOUT_SECONDS = 20.0
OFFLINE_VARIABLE = "BENCH_OFFLINE"
OFFLINE_REASON = f"--offline or {OFFLINE_VARIABLE} forbids downloads"


def offline() -> bool:
    """Return True if the environment variable ``BENCH_OFFLINE`` forbids downloads.

    It does with any value but an empty one and 0.
    """
    return os.environ.get(OFFLINE_VARIABLE, "") not in {"", "0"}


@contextmanager
def network_timeout(seconds: float) -> Iterator[None]:
    """Set the timeout of sockets that are created within the context."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def confidential(url: str) -> bool:
    """Return True if a download from ``url`` cannot be read or altered on the way.

    >>> confidential("https://example.org/data.zip"), confidential("http://example.org/data.zip")
    (True, False)
    """
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in {"localhost", "127.0.0.1", "::1"}
