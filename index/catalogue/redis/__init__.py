"""Catalogue and histories in Redis or Valkey, for several hosts."""
