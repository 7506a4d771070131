"""The training engine: runs, the loop, checkpoints to resume from, processes, logs."""
