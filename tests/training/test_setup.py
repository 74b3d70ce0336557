"""What a network is given before its first step."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A page is 4 KB, so that 64 MB are 16384 of them.
FAULTS = """
import resource, torch
from pdr_cli.training.setup import keep_freed_memory
kept = {keep} and keep_freed_memory()
for _ in range(20):  # the alignment of the first ones leaves gaps: up to 8 where two threads share the work
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**24)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    """Pages that the system has to find for 64 MB that were freed a moment ago."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True, timeout=120
    )
    kept, count = map(int, done.stdout.split())
    if keep and not kept:
        pytest.skip("the C library is not glibc")
    return count


def test_freed_memory_is_kept_for_the_next_step() -> None:
    assert faults(keep=True) < 1000 < faults(keep=False)
