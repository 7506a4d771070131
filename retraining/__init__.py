"""Retraining that guards itself: `seqrec retrain` trains on the service's own data, compares, and publishes or not."""
