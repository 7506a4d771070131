"""Data sets as training reads them, and their splits."""
