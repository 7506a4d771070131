"""Rules of a shop over a ranking, as they are sent, stored in placements, and applied."""
