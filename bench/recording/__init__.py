"""Hooks on a running model that record spikes, operations and times."""
