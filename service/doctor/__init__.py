"""`seqrec doctor`: checks of the machine, the settings and the stores."""
