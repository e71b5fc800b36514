"""Speed and memory of the scans and networks on this machine, as tables and as JSON.

python scripts/benchmark.py --cpu --json results/benchmark.json
python scripts/benchmark.py --gpu --only scan infer --time-limit 300
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.cpu import run_cpu
from benchmarks.gpu import PARTS, run_gpu
from benchmarks.tables import Report, Settings, describe_environment

from mambair.errors import UserError

SECTIONS = {"cpu": run_cpu, "gpu": run_gpu}


def _default_sections() -> list[str]:
    """Every section that this machine can run."""
    return ["cpu", "gpu"] if torch.cuda.is_available() else ["cpu"]


def main() -> None:
    """Measure the sections that the command line names, or all that this machine can run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="measure on the CPU")
    parser.add_argument("--gpu", action="store_true", help="measure on the CUDA GPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all cores)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements per figure; the median counts")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to see that everything runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="GPU tables (default: all)")
    parser.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="begin no further row of the GPU tables after this time"
    )
    arguments = parser.parse_args()
    settings = Settings(
        threads=arguments.threads,
        repeats=arguments.repeats,
        quick=arguments.quick,
        only=tuple(arguments.only),
        time_limit=arguments.time_limit,
    )
    chosen = [name for name in SECTIONS if getattr(arguments, name)] or _default_sections()
    report = Report(describe_environment(settings))
    try:
        report.run((SECTIONS[name] for name in chosen), settings, arguments.json)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
