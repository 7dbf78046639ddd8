"""Bounds on how long the network is waited for, and on whom it is trusted to be."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

NETWORK_TIMEOUT_SECONDS = 20.0


@contextmanager
def network_timeout(seconds: float) -> Iterator[None]:
    """Within the context, let no new socket wait longer than this for an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def confidential(url: str) -> bool:
    """Whether nobody between here and the server can read or alter what it sends."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in {"localhost", "127.0.0.1", "::1"}
