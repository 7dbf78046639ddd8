"""Files, checksums, devices, memory, signals, paths and progress."""
