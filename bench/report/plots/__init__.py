"""The plots of a run, each a plug-in of the entry-point group ``bench.plots``."""
