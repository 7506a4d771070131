"""The service in a Python process, without a server: `seqrec.Recommender`."""
