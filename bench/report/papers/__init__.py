"""Published tables with this suite's numbers next to them."""
