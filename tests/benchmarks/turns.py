"""Two implementations that take turns in one process, so that other load disturbs both equally."""

import time
from statistics import median

TURNS = 9


def compared(what, images, naive, fused, turns=TURNS):
    """Yield the images per second of two calls, and the median ratio of their seconds."""
    calls = naive, fused
    for call in calls:
        call()
    seconds = [[_seconds(call) for call in calls] for _ in range(turns)]
    for kind, own in zip(("naive", "fused"), zip(*seconds, strict=True), strict=True):
        yield f"{what}: {kind}", "images/s", images / median(own)
    yield f"{what}: ratio", "1", median(slow / fast for slow, fast in seconds)


def _seconds(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
