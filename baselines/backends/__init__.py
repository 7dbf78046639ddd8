"""Spiking backends in plain PyTorch, snnTorch and SpikingJelly."""
