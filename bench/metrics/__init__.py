"""The metrics, one file a family, behind the contract of ``bench.metrics.metric``."""
