"""The live state: a snapshot plus every change since, searched as one catalogue."""
