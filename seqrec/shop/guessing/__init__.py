"""What `seqrec init` finds out of a shop's files: which column is what, written as a first shop.toml."""
