"""Measure throughput, peak memory and time per layer."""
