"""Datasets, one module per source. ``bench.datasets.resolve`` opens them by name."""
