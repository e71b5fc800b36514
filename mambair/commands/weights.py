"""`mambair weights`: list the published files, fetch them, convert weights to safetensors.

PyTorch is imported where a network is loaded, not before: the list appears at once.
"""

import argparse
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress
from rich.table import Table

from mambair.commands.arguments import level_argument, load_named_plugins
from mambair.commands.exit_codes import OK, SOME_FAILED, reports_user_errors
from mambair.errors import UserError
from mambair.options import add_plugin_argument
from mambair.registry import did_you_mean
from mambair.runtime.claims import claimed, lock_beside
from mambair.runtime.files import FileMark, atomic_write, sha256_of, write_unless_changed
from mambair.runtime.log_setup import console, setup_logging
from mambair.weights.measured import measured
from mambair.weights.published import PROJECT_PAGE, PUBLISHED, PublishedWeights
from mambair.weights.sources import (
    NOISE_KEY,
    TASK_KEY,
    cache_folder,
    check_purpose,
    find_weights,
    published_name,
    read_purpose,
    read_scale,
    served_by,
    shipped_weights,
)
from mambair.weights.tasks import KINDS, TASKS, Level, task_name

logger = logging.getLogger(__name__)

BLOCK = 2**20
TIMEOUT_SECONDS = 60


def build_parser() -> argparse.ArgumentParser:
    """The command line of `mambair weights`."""
    parser = argparse.ArgumentParser(
        "mambair weights", description="Weights in the package, published weights, and conversion of your own."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="the files in the package and the published ones: task, scale, the paper's figures")
    get = actions.add_parser("get", help="fetch published files into the cache, for --weights NAME")
    get.add_argument("names", nargs="+", metavar="NAME", help="name in the list")
    convert = actions.add_parser("convert", help="convert .pth to .safetensors with hyperparameters in its metadata")
    convert.add_argument("source", metavar="FILE", help=".pth or .safetensors, or a name in the list")
    convert.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.safetensors")
    add_plugin_argument(convert)
    convert.add_argument("--half", action="store_true", help="store 16-bit floats: half the size")
    convert.add_argument("--task", choices=KINDS, help="task to note in the file")
    convert.add_argument(
        "--noise",
        type=level_argument,
        metavar="N",
        help="noise level or JPEG quality, likewise; 0-55 for a blind network",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 if a file could not be fetched, 2 for wrong arguments."""
    arguments = build_parser().parse_args(argv)
    setup_logging(None, 0)
    if arguments.action == "list":
        list_weights()
        return OK
    if arguments.action == "get":
        return get_published(arguments.names)
    convert_weights(arguments)
    return OK


def list_weights() -> None:
    """Print the table of the files in the package and of those that are published, and which task takes which."""
    shipped = shipped_weights()
    figures = measured()
    table = Table("name", "task", "scale", "PSNR/SSIM", "SHA-256", "here", show_edge=False)
    for name, path in shipped.items():
        kind, level = read_purpose(path)
        scale = read_scale(path) or 1
        purpose = (task_name(kind, scale) or "unknown") + (f", {level}" if level is not None else "")
        own = f"measured: {figures[name].summary()}" if name in figures else "not measured"
        table.add_row(name, purpose, f"x{scale}", own, "", "package")
    for name, published in PUBLISHED.items():
        here = "yes" if (cache_folder() / published.file_name).is_file() else ""
        table.add_row(
            name, published.task, f"x{published.scale}", published.figures, published.sha256 or "unknown", here
        )
    console.print(table)
    console.print(_task_table())
    if shipped:
        console.print(
            f"{', '.join(shipped)}: in the package; data, training, results and limits are in docs/model_card.md "
            "of the project."
        )
    console.print(
        f"The others are published by the papers' authors, linked from {PROJECT_PAGE}; v2: MambaIRv2's.\n"
        "Their figures are the papers'; `page`: in no table of the paper, stated on the project's page.\n"
        f"`mambair weights get NAME` fetches a file into {cache_folder()}; then pass --weights NAME, or its task.",
        markup=False,
    )


def _task_table() -> Table:
    """Which weights `mambair restore --task` takes on this computer, or how to get some."""
    table = Table("--task", "for", "is done by", show_edge=False)
    for name, task in TASKS.items():
        path = served_by(name)
        suggestion = published_name(name, None)
        missing = f"nothing here: mambair weights get {suggestion}" if suggestion else "nothing here, none published"
        table.add_row(name, task.hint, missing if path is None else path.stem)
    return table


def get_published(names: Sequence[str]) -> int:
    """Fetch files that are not in the cache yet; returns the exit code."""
    for name in names:
        if name not in PUBLISHED:
            raise UserError(f"no published weights are called '{name}'{did_you_mean(name, PUBLISHED)}")
    failed = 0
    for name in names:
        target = cache_folder() / PUBLISHED[name].file_name
        if target.is_file():
            console.print(f"{name}: already in {target}", markup=False)
            continue
        try:
            with claimed(lock_beside(target), name, "wait for its end, and start again if it fails"):
                download(name, PUBLISHED[name], target)
        except UserError as error:
            logger.error("%s", error)
            failed += 1
        else:
            console.print(f"{name}: {target}, SHA-256 {sha256_of(target)}", markup=False, soft_wrap=True)
    return SOME_FAILED if failed else OK


def download(name: str, published: PublishedWeights, target: Path) -> None:
    """Fetch one file; it appears at `target` when it is complete and holds a network's weights."""
    advice = f"open {PROJECT_PAGE}, take the file from its table, and save it as {target}"
    with atomic_write(target) as temporary:
        for number, url in enumerate(published.urls, 1):
            try:
                _fetch(name, url, temporary)
                break
            except (urllib.error.URLError, OSError) as error:
                if number == len(published.urls):
                    reason = getattr(error, "reason", error)
                    raise UserError(f"{name}: cannot be fetched ({reason}); {advice}") from error
                logger.warning("%s: %s cannot be fetched (%s); the next place is tried", name, url, error)
        if published.sha256 is not None and sha256_of(temporary) != published.sha256:
            raise UserError(f"{name}: what was fetched does not have SHA-256 {published.sha256}; {advice}")
        from mambair.weights.loading import load_network

        try:  # instead of a file, Google Drive may answer with a page: a login, a warning, a quota
            load_network(temporary)
        except UserError as error:
            raise UserError(f"{name}: what was fetched is no network's weights ({error}); {advice}") from error


def _fetch(name: str, url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, path.open("wb") as stream:
        length = answer.headers.get("Content-Length")
        with Progress(console=console) as progress:
            task = progress.add_task(name, total=int(length) if length else None)
            while block := answer.read(BLOCK):
                stream.write(block)
                progress.advance(task, len(block))


def purpose_to_note(source: Path, scale: int, task: str | None, level: Level | None) -> tuple[str | None, Level | None]:
    """What a converted file shall state: what the command line says, or else what the source does.

    Raises UserError where they contradict each other, or the scale.
    """
    stated_task, stated_level = read_purpose(source)
    if task is not None and (task == "sr" or scale > 1):
        check_purpose(source, scale, "sr" if task in ("sr", "photo") else task, None)
    if None not in (task, stated_task) and task != stated_task:
        raise UserError(f"{source}: these weights state task '{stated_task}', not '{task}'; leave --task out")
    if level is not None and stated_level not in (None, level):
        raise UserError(f"{source}: these weights state noise {stated_level}, not {level}; leave --noise out")
    return task or stated_task, level or stated_level


def convert_weights(arguments: argparse.Namespace) -> None:
    """Write a network's weights as safetensors; options, task and noise go into the file's metadata."""
    from safetensors.torch import save

    from mambair.archs.network import traits_of
    from mambair.weights.loading import load_network, network_options
    from mambair.weights.state_files import METADATA_KEY

    target: Path = arguments.output
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: the output must end in .safetensors")
    earlier = FileMark.of(target)
    if earlier is not None and not arguments.overwrite:
        raise UserError(f"{target}: exists; pass --overwrite to replace it")
    load_named_plugins(arguments)
    source = find_weights(arguments.source)
    network = load_network(source)
    task, noise = purpose_to_note(source, traits_of(network).scale, arguments.task, arguments.noise)
    metadata = {"format": "pt", METADATA_KEY: json.dumps(network_options(network))}
    if task is not None:
        metadata[TASK_KEY] = task
    if noise is not None:
        metadata[NOISE_KEY] = str(noise)
    state = {key: value.half() if arguments.half else value for key, value in network.state_dict().items()}
    if arguments.half:
        large = [key for key, value in state.items() if not bool(value.isfinite().all())]
        if large:
            raise UserError(f"{source}: {', '.join(large[:3])} has numbers too large for 16 bits; leave --half out")
    with write_unless_changed(target, earlier) as temporary:
        # Not by save_file, whose files only their owner may read.
        temporary.write_bytes(save({key: value.contiguous() for key, value in state.items()}, metadata))
    console.print(
        f"{target}: {target.stat().st_size:,} bytes, SHA-256 {sha256_of(target)}", markup=False, soft_wrap=True
    )
