"""Endpoints, one module a topic."""
