"""Copies of the catalogue as files: dump and restore, and the command `seqrec catalogue`."""
