"""scripts/benchmark.py at tiny sizes: its tables and its JSON file."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_cpu_tables_and_json(tmp_path: Path) -> None:
    file = tmp_path / "figures" / "cpu.json"
    command = [sys.executable, "scripts/benchmark.py", "--cpu", "--quick", "--repeats", "1", "--json", str(file)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["environment"]["torch"]
    scans, memory, networks, kept = report["tables"]
    assert [row["pass"] for row in scans["rows"]] == ["forward", "fwd + bwd"] * 3
    assert all(row["ns/update"] > 0 for row in scans["rows"])
    assert {row["pass"] for row in networks["rows"]} == {"forward", "fwd + bwd"}
    assert all(row["ratio to SwinIR"] > 0 for table in (networks, kept) for row in table["rows"])
    for table in (scans, memory, networks, kept):
        assert table["title"] in result.stdout
