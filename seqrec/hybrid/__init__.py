"""Hybrid scoring: co-occurrence, words, repeats and dense vectors in one inner product of an item and a history."""
