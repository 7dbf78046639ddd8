"""The fast spiking backend: Numba kernels for CPU, Triton kernels for CUDA."""
