"""The suite: trains every model and writes the Recformer paper's tables."""
