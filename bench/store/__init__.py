"""Read and write run directories."""
