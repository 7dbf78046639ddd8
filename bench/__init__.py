"""A benchmark of spiking generative models under one set of rules.

``bench.run`` trains and evaluates models on datasets, ``bench.score`` scores images that exist,
``bench.load_results`` reads the results of a run, ``bench.across_seeds`` averages them over seeds,
and ``bench.profile`` measures speed.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import profile, run, score
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
    "score",
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
    "score": "bench.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import bench`` imports no torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
