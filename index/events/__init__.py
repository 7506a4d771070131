"""The log of events: counts that follow it, and imports of interactions from files."""
