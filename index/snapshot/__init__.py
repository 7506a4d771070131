"""Snapshots: immutable, verified directories that the service loads, and their publication."""
