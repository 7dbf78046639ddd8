"""Checks of plug-ins against their contracts, for tests of your own and for ``bench check``.

``check_model``, ``check_backend``, ``check_metric`` and ``check_dataset`` return how each check
ended. ``model_checks`` and the others return the checks themselves, to parametrise a test with.
"""

from bench.testing.backend_checks import backend_checks, check_backend, verdict
from bench.testing.checks import Check, CheckFailedError, CheckResult, NotApplicableError
from bench.testing.dataset_checks import check_dataset, dataset_checks
from bench.testing.metric_checks import check_metric, metric_checks
from bench.testing.model_checks import check_model, model_checks

__all__ = [
    "Check",
    "CheckFailedError",
    "CheckResult",
    "NotApplicableError",
    "backend_checks",
    "check_backend",
    "check_dataset",
    "check_metric",
    "check_model",
    "dataset_checks",
    "metric_checks",
    "model_checks",
    "verdict",
]
