"""Training of a model: the loop, and checkpoints to resume from."""
