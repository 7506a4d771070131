"""The search of one snapshot's rows as a contract: in process, or by an external engine."""
