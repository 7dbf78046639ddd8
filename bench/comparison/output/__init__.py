"""Format a comparison for the terminal, Markdown and JUnit XML."""
