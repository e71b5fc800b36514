"""Train and tabulate the rows of the paper's Tables 1 and 2 at a given budget.

python scripts/ablations.py --iterations 500000
    the paper's networks and data, one run after another (each goes on where it stopped if the command is repeated)

python scripts/ablations.py --iterations 300 --force_yml num_gpu=auto network_g:depths=[2,2] network_g:embed_dim=32 ...
    anything smaller: --force_yml changes all rows in the same way

On several GPUs train each row's file under torchrun first, as its first lines say; this script then only tabulates.

Every row is an option file of its own under options/ablation. The schedule's milestones are moved in proportion to
the budget. The table, best and second best values marked, is printed and written to
results/<name of the first row>/comparison.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from mambair.commands import test as test_command
from mambair.commands import train as train_command
from mambair.commands.exit_codes import reports_user_errors
from mambair.errors import UserError
from mambair.options import TrainOptions, parse_train_options

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "options" / "ablation"
ROWS = (
    "baseline",
    "table1_1_remove_conv",
    "table1_2_remove_conv_ca",
    "table1_3_mlp",
    "table2_one_direction",
    "table2_two_directions",
)


def scaled_overrides(options: TrainOptions, iterations: int) -> list[str]:
    """What --force_yml must say for a run of another length, the learning rate falling at the same fractions of it."""
    share = iterations / options.train.total_iter
    milestones = [max(1, round(milestone * share)) for milestone in options.train.scheduler["milestones"]]
    return [
        f"train:total_iter={iterations}",
        f"train:scheduler:milestones={milestones}",
        f"val:val_freq={min(options.val.val_freq, iterations)}",
        f"logger:save_checkpoint_freq={min(options.logger.save_checkpoint_freq, iterations)}",
    ]


def write_test_file(options: TrainOptions) -> Path:
    """A test file beside the run's checkpoints: its network with the last weights, on its validation sets."""
    experiment = options.path.root / "experiments" / options.name
    weights = experiment / "models" / f"net_g_{options.train.total_iter}.pth"
    evaluation = {key: value for key, value in options.datasets.items() if key != "train"}
    content = {
        "name": options.name,
        "model_type": options.model_type,
        "scale": options.scale,
        "num_gpu": options.num_gpu,
        "datasets": {
            key.replace("val", "test"): section.model_dump(mode="json", exclude_unset=True)
            for key, section in evaluation.items()
        },
        "network_g": options.network_g,
        "path": {"pretrain_network_g": str(weights), "root": str(options.path.root)},
        "val": {"tile": options.val.tile, "metrics": options.val.metrics},
    }
    path = experiment / "test.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Train all rows, then test them together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, required=True, help="optimiser steps of each row (paper: 500000)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="only these")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY:SUBKEY=VALUE", help="for every row")
    arguments = parser.parse_args(argv)
    if arguments.iterations < 1:
        raise UserError(f"--iterations {arguments.iterations}: must be at least 1")
    tests = []
    for row in arguments.rows:
        path = FOLDER / f"{row}.yml"
        overrides = [*scaled_overrides(parse_train_options(path), arguments.iterations), *arguments.force_yml]
        options = parse_train_options(path, force_yml=overrides)
        code = train_command.main(["-opt", str(path), "--auto_resume", "--force_yml", *overrides])
        if code != 0:
            return code
        tests.append(str(write_test_file(options)))
    compare = ["--compare", *tests[1:]] if len(tests) > 1 else []
    return test_command.main(["-opt", tests[0], *compare])


if __name__ == "__main__":
    sys.exit(main())
