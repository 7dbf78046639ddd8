"""Bounds on how long the network is waited for."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

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
