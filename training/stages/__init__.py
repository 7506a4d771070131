"""Training stages: what is optimised, one module a stage."""
