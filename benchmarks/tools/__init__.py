"""What benchmarks share: services, servers and load to measure, synthetic data, reports."""
