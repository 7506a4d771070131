"""Catalogue and histories in SQLite, for one host."""
