"""The catalogue of items and the store of user histories: contracts, backends, dump and restore."""
