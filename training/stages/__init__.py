"""Training stages: one module a stage, which provides batches and their loss."""
