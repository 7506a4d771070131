"""What models share: the contract, tables of ids, frozen text encoders, attention blocks."""
