"""What people read of a run: it is made of the run directory alone."""
