"""Numba kernels of the fast backend and the layers that call them."""
