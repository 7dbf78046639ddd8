"""A comparison for the terminal, as Markdown and as JUnit XML."""
