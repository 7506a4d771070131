"""Offline evaluation: ranking metrics, baselines, significance, reports."""
