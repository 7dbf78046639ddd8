"""The report of a run, as an HTML page or as Markdown."""
