"""The static leaderboard that ``bench site`` writes: tables over runs, and a page per model."""
