"""The fast spiking backend: kernels for CPU (Numba) and CUDA (Triton)."""
