"""Encoding and counting for the batch job, in its own process or in those of a Ray cluster."""
