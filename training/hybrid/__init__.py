"""Fitting the hybrid score: its settings and weights, chosen on validation."""
