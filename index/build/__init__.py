"""Building snapshots: importing items, encoding, reindexing."""
