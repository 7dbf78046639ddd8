"""Execution of cells: in this process, in worker processes, on a cluster."""
