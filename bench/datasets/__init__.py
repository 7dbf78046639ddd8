"""Datasets: one module a source; ``bench.datasets.resolve`` opens what the command line names."""
