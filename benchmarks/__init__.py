"""What is fast, how fast, against what. `seqrec bench NAME` and `python -m benchmarks.NAME` are the same."""

from seqrec.memory import keep_freed
from seqrec.threads import wait_asleep

# As the program does, before torch is imported.
wait_asleep()
keep_freed()
