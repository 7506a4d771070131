"""External vector engines: how snapshots are stored in them, filled and searched."""
