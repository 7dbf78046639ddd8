"""Time limits for network access, and the check that a URL is safe to download from."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

NETWORK_TIMEOUT_SECONDS = 20.0


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
