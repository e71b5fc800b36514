"""Keeping and giving back freed memory, in processes of their own: both change the whole process."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

MEGABYTES = 64

# Page faults of making and freeing a large tensor ten times, then memory in use (pages) before and after giving back.
PROGRAM = f"""
import resource, sys, torch
from pathlib import Path
from mambair.runtime.freed_memory import give_back_freed_memory, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

if sys.argv[1] == "keep":
    keep_freed_memory()
torch.ones({MEGABYTES} * 2**18)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones({MEGABYTES} * 2**18)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = resident()
give_back_freed_memory()
print(faults, held - resident(), resource.getpagesize())
"""


def measure(how: str) -> tuple[int, int, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=120, check=True)
    faults, given_back, page = map(int, done.stdout.split())
    return faults, given_back * page, page


def test_kept_memory_is_used_again_and_can_be_given_back() -> None:
    kept_faults, kept_bytes, page = measure("keep")
    faults, given_back, _ = measure("leave")
    assert faults >= 10 * MEGABYTES * 2**20 // page  # every page of every tensor
    # Older versions of glibc do not find the place of an aligned tensor again every time.
    assert kept_faults < 0.7 * faults
    assert kept_bytes > 0.9 * MEGABYTES * 2**20 > given_back
