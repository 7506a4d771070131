"""Recformer (Li et al., KDD 2023): the model, its CUDA graphs, and conversion of other checkpoints to it."""
