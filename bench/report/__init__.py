"""What is made of a run directory: tables, plots, the report."""
