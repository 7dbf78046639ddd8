"""Tables, plots and reports of a run, made from its run directory alone."""
