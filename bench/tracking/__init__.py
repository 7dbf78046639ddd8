"""Trackers: where a run logs the course of its trainings, such as TensorBoard."""
