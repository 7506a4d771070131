"""Readers of other formats: Amazon dumps, MovieLens, RecBole and Recformer folders."""
