"""The training loop, its record and its checkpoints."""
