from __future__ import annotations

import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from seqrec.runtime.malloc import tune_malloc
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    tune_malloc()
def batch():
    parts = [torch.ones(1_000_000) for _ in range(4)]
for _ in range(10):
    batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library is Linux's")
def test_freed_memory_is_used_again() -> None:
    """Sixteen megabytes, ten times over; the heap may move once while it is counted."""
    kept = int(subprocess.run([sys.executable, "-c", FAULTS, "keep"], capture_output=True, check=True).stdout)
    assert kept * resource.getpagesize() < 20_000_000
