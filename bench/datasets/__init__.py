"""Datasets: one module a source; ``bench.datasets.selection`` opens what the command line names."""
