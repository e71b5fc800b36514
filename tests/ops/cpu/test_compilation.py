"""Compiling kernels takes long enough to be told, once; kernels from the cache need no word."""

import subprocess
import sys
from pathlib import Path

CODE = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from mambair.ops.cpu.compilation import kernel

def add(x, sources=""):
    return x + 1

compiled = kernel(add)
assert compiled(1) == 2 and compiled(1.5) == 2.5
"""


def run(folder: Path) -> list[str]:
    script = folder / "use.py"
    script.write_text(CODE, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_it_is_said_once_and_only_where_it_is_done(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    assert [line for line in first if "compiling kernels" in line] == [
        "INFO:mambair.ops.cpu.compilation:compiling kernels for this CPU, once per machine: up to a minute"
    ]
    assert not any("compiling kernels" in line for line in second)
