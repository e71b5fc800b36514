"""`mambair finetune`: from a folder of clean photos and a network to a better one for photos like these."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from mambair.archs.network import traits_of
from mambair.commands.arguments import level_argument, load_named_plugins, positive_argument
from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.commands.finetune.photos import find_photos, split_photos
from mambair.commands.finetune.plan import NAME, RECIPE, START, TEST, make_recipe, purpose_of, sizes_for, write_plan
from mambair.commands.finetune.verdict import judge, keep_weights, write_picture, write_report
from mambair.commands.runs_together import run_together
from mambair.commands.tested_networks import replaced
from mambair.engine.evaluate.run import Tester
from mambair.engine.train.run import TrainingRun
from mambair.errors import UserError
from mambair.options import RunArguments, add_plugin_argument, parse_test_options, parse_train_options
from mambair.runtime.distributed import ProcessGroup
from mambair.runtime.files import sha256_of
from mambair.runtime.log_setup import console, setup_logging
from mambair.runtime.run_folders import claimed_experiment, claimed_results
from mambair.weights.loading import load_network
from mambair.weights.sources import find_weights
from mambair.weights.tasks import KINDS

DESCRIPTION = (
    "Fine-tune a network on a folder of clean photos: pairs are made on the fly, some photos are held out, and the new "
    "weights are kept only if they restore those better. The same command goes on after an interruption."
)
SMALLEST = 48
"""Shortest side of a photo, in pixels of the low-quality image."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("mambair finetune", description=DESCRIPTION)
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of clean photos; folders in it count too")
    parser.add_argument("--weights", required=True, metavar="NAME", help="a file, or a name of `mambair weights list`")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="default: finetuned/PHOTOS_NAME")
    parser.add_argument("--task", choices=KINDS, help="of networks that do not enlarge and whose file does not say it")
    parser.add_argument(
        "--noise",
        type=level_argument,
        metavar="N",
        help="sigma of the noise, or JPEG quality; 0-55 for a blind network",
    )
    parser.add_argument(
        "--iterations", type=positive_argument, metavar="N", help="default: by the number and size of the photos"
    )
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of held-out photos and of training")
    add_plugin_argument(parser)
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 2 for wrong arguments or photos, 130 or 143 when stopped."""
    arguments = build_parser().parse_args(argv)
    setup_logging(None, 0)
    folder = prepare(arguments)
    options = parse_train_options(folder / RECIPE)
    run = RunArguments(folder / RECIPE, "none", True, False, 0, ())

    def train_and_judge(group: ProcessGroup) -> int:
        with claimed_experiment(options.path.root, options.name):
            code = TrainingRun(options, group, auto_resume=True).run()
        if code != OK:
            console.print("the same command goes on from here", markup=False)
            return code
        return compare(folder, group, arguments.weights)

    return run_together(run, options.dist_params, train_and_judge)


def prepare(arguments: argparse.Namespace) -> Path:
    """Find everything out that can be wrong, say what will be done, and write the plan; returns its folder."""
    plugins = [plugin.spec for plugin in load_named_plugins(arguments)]
    weights = find_weights(arguments.weights, task=None)
    network = load_network(weights)
    purpose = purpose_of(network, weights, arguments.task, arguments.noise)
    traits = traits_of(network)
    photos, left_out = find_photos(arguments.photos, SMALLEST * purpose.scale, purpose.is_gray)
    for line in left_out:
        console.print(f"left out: {line}", markup=False, highlight=False, soft_wrap=True)
    split = split_photos(photos, arguments.seed)
    is_gpu = arguments.device == "auto" and torch.cuda.is_available()
    sizes = sizes_for(split.trained, traits.scale, is_gpu, arguments.iterations)
    folder: Path = arguments.output or Path(NAME) / f"{arguments.photos.resolve().name}_{Path(weights).stem}"
    if folder.is_file():
        raise UserError(f"{folder}: is a file, but the results go into a folder; name another with -o")
    source = f"{arguments.weights} (SHA-256 {sha256_of(weights)[:16]})"
    num_gpu = "auto" if arguments.device == "auto" else 0
    recipe = make_recipe(folder, arguments.photos, network, source, purpose, sizes, num_gpu, arguments.seed, plugins)
    write_plan(folder, arguments.photos, split, recipe, network)
    console.print(
        f"{len(split.trained)} photos to train on, {len(split.watched)} to find the end by, {len(split.judged)} to "
        f"judge by; at most {sizes.total_iter:,} iterations of {sizes.batch} patches of {sizes.gt_size} pixels, "
        f"learning rate {sizes.learning_rate:g}. Recipe: {folder / RECIPE}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return folder


def compare(folder: Path, group: ProcessGroup, source: str) -> int:
    """Test the weights before and after on the judged photos, keep the better ones, and say so."""
    best = folder / "experiments" / NAME / "models" / "net_g_best.pth"
    options = parse_test_options(folder / TEST)
    files = [
        replaced(options, weights=folder / START, name="before"),
        replaced(options, weights=best, name="after"),
    ]
    tester = Tester(files, group)
    with ExitStack() as claims:
        for each in files:
            claims.enter_context(claimed_results(each.path.root, each.name))
        code = tester.run()
    before, after = tester.candidates
    verdict = judge(before, after)
    kept = keep_weights(folder, verdict, folder / START, best)
    picture = write_picture(folder, before, after)
    notes = [f"before: {source}; after: {best}", f"kept: {kept}", f"recipe: {folder / RECIPE}"]
    report = write_report(folder, verdict, notes)
    for line in (verdict.sentence(), f"weights: {kept}", f"report: {report}, picture: {picture}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return code
