"""Measurements of speed, memory and reliability. `seqrec bench NAME` runs one."""

from seqrec.runtime.malloc import tune_malloc
from seqrec.runtime.threads import use_passive_waits

# As `seqrec` does, before torch is imported.
use_passive_waits()
tune_malloc()
