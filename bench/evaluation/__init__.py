"""Evaluation of trained models: passes over images, metrics and example outputs."""
