"""What is fast, how fast, against what. `seqrec bench NAME` and `python -m benchmarks.NAME` are the same."""

from seqrec.runtime.malloc import keep_freed
from seqrec.runtime.threads import wait_asleep

# As the program does, before torch is imported.
wait_asleep()
keep_freed()
