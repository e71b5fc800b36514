"""`mambair options`: check, show, compare and begin option files."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from mambair.commands.arguments import level_argument, positive_argument
from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.errors import UserError
from mambair.options import parse_options
from mambair.runtime.log_setup import console, setup_logging


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("mambair options", description="Check, show, compare and begin option files.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    forced = argparse.ArgumentParser(add_help=False)
    forced.add_argument(
        "--force_yml", nargs="+", action="extend", default=[], metavar="KEY:SUBKEY=VALUE", help="as for train and test"
    )

    show = actions.add_parser("show", parents=[forced], help="every key with its value in effect, and where it is from")
    show.add_argument("file", type=Path)
    show.add_argument("--given", action="store_true", help="only what the file or --force_yml says, no defaults")
    show.add_argument("--all", action="store_true", help="also the degradation keys that nothing in the file reads")
    show.set_defaults(run=run_show)

    check = actions.add_parser("check", help="all mistakes of option files, before any data is read")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")
    check.set_defaults(run=run_check)

    diff = actions.add_parser("diff", help="the keys in which two files differ, defaults included")
    diff.add_argument("one", type=Path)
    diff.add_argument("other", type=Path)
    diff.set_defaults(run=run_diff)

    schema = actions.add_parser("schema", help="the JSON schema that editors use")
    schema.add_argument("kind", choices=("train", "test"), help="of training or of test files")
    schema.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    schema.set_defaults(run=run_schema)

    _add_new(actions.add_parser("new", help="a commented training file for your own folders"))
    return parser


def _add_new(new: argparse.ArgumentParser) -> None:
    new.add_argument("task", choices=("x2", "x3", "x4", "denoise", "jpeg", "photo", "pairs"))
    new.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.yml", help="its name is the run's too")
    new.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="clean images to train on")
    new.add_argument("--degraded", type=Path, metavar="FOLDER", help="their low-quality partners (task pairs)")
    new.add_argument("--val", type=Path, metavar="FOLDER", help="clean images to validate on")
    new.add_argument("--val-degraded", type=Path, metavar="FOLDER", help="their partners (task pairs)")
    new.add_argument("--filename-tmpl", metavar="TEMPLATE", help="names of partners, such as {}x2 (task pairs)")
    new.add_argument(
        "--noise", type=level_argument, metavar="SIGMA", help="task denoise, 0-255 (25); 0-55 for a blind one"
    )
    new.add_argument("--quality", type=level_argument, metavar="Q", help="task jpeg (40); 10-95 for a blind one")
    new.add_argument(
        "--scale", type=positive_argument, metavar="N", help="task pairs: size of clean to low-quality (1)"
    )
    new.add_argument("--gray", action="store_true", help="a network for gray images")
    new.add_argument("--network", choices=("MambaIR", "MambaIRv2"), default="MambaIR", help="default: MambaIR")
    new.add_argument(
        "--size", choices=("light", "classic"), default="light", help="0.8 to 0.9 or 16 to 23 million parameters"
    )
    new.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    new.set_defaults(run=run_new)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 for wrong files and arguments."""
    arguments = build_parser().parse_args(argv)
    setup_logging(None, 0)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def run_show(arguments: argparse.Namespace) -> int:
    """Print every key of a file, its value and origin."""
    from mambair.commands.options.resolved import resolve

    options = parse_options(arguments.file, force_yml=arguments.force_yml)
    table = Table("key", "value", "from", show_edge=False, box=None, pad_edge=False)
    for row in resolve(options, everything=arguments.all):
        if row.is_given or not arguments.given:
            style = None if row.is_given else "dim"
            table.add_row(escape(row.key), escape(row.value), escape(row.origin), style=style)
    console.print(table, soft_wrap=not console.is_terminal)
    for warning in options.source.warnings:
        console.print(warning, markup=False, highlight=False, soft_wrap=True)
    return OK


def run_check(arguments: argparse.Namespace) -> int:
    """Print what is wrong with each file, or what it does; returns 2 if anything is wrong."""
    from mambair.commands.options.check import all_mistakes_told, missing_files, mistakes, summary

    found: list[str] = []
    for file in arguments.files:
        try:
            with all_mistakes_told():
                options = parse_options(file)
        except UserError as error:
            found += str(error).splitlines()
            continue
        wrong = mistakes(options)
        found += wrong
        for note in (*options.source.warnings, *missing_files(options)):
            console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
        if not wrong:
            console.print(f"{file}: {summary(options)}", markup=False, highlight=False, soft_wrap=True)
    if found:
        raise UserError("\n".join(found))
    return OK


def run_diff(arguments: argparse.Namespace) -> int:
    """Print the keys in which two files differ."""
    from mambair.commands.options.resolved import Row, differences, resolve

    def cell(row: Row | None) -> str:
        if row is None:
            return "-"
        return escape(row.value) if row.is_given else f"{escape(row.value)} (default)"

    one, other = (resolve(parse_options(file)) for file in (arguments.one, arguments.other))
    table = Table("key", escape(str(arguments.one)), escape(str(arguments.other)), show_edge=False)
    for key, first, second in differences(one, other):
        table.add_row(escape(key), cell(first), cell(second))
    if table.row_count:
        console.print(table, soft_wrap=not console.is_terminal)
    else:
        console.print("the files mean the same", markup=False)
    return OK


def run_schema(arguments: argparse.Namespace) -> int:
    """Write a schema that knows whatever is registered now."""
    from mambair.commands.options.components import all_components
    from mambair.commands.options.json_schema import option_schema
    from mambair.commands.options.schema_files import schema_text
    from mambair.options import TestOptions, TrainOptions
    from mambair.runtime.files import atomic_write

    schema = option_schema(TrainOptions if arguments.kind == "train" else TestOptions, all_components)
    with atomic_write(arguments.output) as temporary:
        temporary.write_text(schema_text(schema), encoding="utf-8")
    console.print(f"written: {arguments.output}", markup=False)
    return OK


def run_new(arguments: argparse.Namespace) -> int:
    """Write a training file and say what to do with it."""
    from mambair.commands.options.new import write_new

    if arguments.quality is not None and not 1 <= arguments.quality.low <= arguments.quality.high <= 100:
        raise UserError(f"--quality {arguments.quality}: expected a JPEG quality from 1 to 100")
    path = write_new(arguments)
    parse_options(path)
    console.print(f"written: {path}", markup=False)
    console.print(f"next: mambair data check -opt {path}; mambair train -opt {path}", markup=False)
    return OK
