"""Metrics, one file per family. :mod:`bench.metrics.metric` has the contract."""
