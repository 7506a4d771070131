"""A shop's own data: the project file shop.toml, the import of exports, and the stages of `seqrec up`."""
