"""What is fast, how fast, against what. `seqrec bench NAME` and `python -m benchmarks.NAME` are the same."""

from seqrec.threads import wait_asleep

wait_asleep()  # as the program does: before torch is imported
