"""The plan of a run: the cells that a request stands for."""
