"""The log of events: counts that follow it, and interactions put into it from files."""
