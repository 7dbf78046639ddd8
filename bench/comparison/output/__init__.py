"""A comparison for the terminal, as Markdown, as JUnit XML and for GitHub Actions."""
