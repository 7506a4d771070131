"""The machine: threads, memory allocation, quantization, progress output."""
