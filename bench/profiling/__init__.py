"""Profiles of models: throughput, peak memory and time per layer."""
