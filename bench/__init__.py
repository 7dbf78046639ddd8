"""One fair benchmark for spiking generative models.

``bench.run`` trains and scores a selection of cells; ``bench.load_results`` reads them back, and
``bench.across_seeds`` takes the seeds together. ``bench.profile`` tells how fast models are.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import profile, run
    from bench.errors import BenchError
    from bench.model import GenerativeModel
    from bench.protocol import Protocol, load_protocol
    from bench.store.aggregation import across_seeds
    from bench.store.run_directory import load_results

__all__ = [
    "BenchError",
    "GenerativeModel",
    "Protocol",
    "across_seeds",
    "load_protocol",
    "load_results",
    "profile",
    "run",
]

_HOMES = {
    "BenchError": "bench.errors",
    "GenerativeModel": "bench.model",
    "Protocol": "bench.protocol",
    "across_seeds": "bench.store.aggregation",
    "load_protocol": "bench.protocol",
    "load_results": "bench.store.run_directory",
    "profile": "bench.api",
    "run": "bench.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import bench`` alone imports no torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
