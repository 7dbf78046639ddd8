"""A benchmark of spiking generative models under one set of rules.

``bench.run`` trains and evaluates models on datasets, ``bench.score`` scores images that exist,
``bench.open`` reads a run for a notebook, ``bench.load_results`` reads its rows alone,
``bench.across_seeds`` averages them over seeds, and ``bench.profile`` measures speed.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import profile, run, score
    from bench.errors import BenchError
    from bench.model import GenerativeModel
    from bench.protocol import Protocol, load_protocol
    from bench.report.opened_run import open_run as open
    from bench.store.aggregation import across_seeds
    from bench.store.run_directory import load_results

__all__ = [
    "BenchError",
    "GenerativeModel",
    "Protocol",
    "across_seeds",
    "load_protocol",
    "load_results",
    "open",
    "profile",
    "run",
    "score",
]

_HOMES = {
    "BenchError": "bench.errors:BenchError",
    "GenerativeModel": "bench.model:GenerativeModel",
    "Protocol": "bench.protocol:Protocol",
    "across_seeds": "bench.store.aggregation:across_seeds",
    "load_protocol": "bench.protocol:load_protocol",
    "load_results": "bench.store.run_directory:load_results",
    "open": "bench.report.opened_run:open_run",
    "profile": "bench.api:profile",
    "run": "bench.api:run",
    "score": "bench.api:score",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import bench`` imports no torch."""
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
