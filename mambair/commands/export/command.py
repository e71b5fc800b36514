"""`mambair export`: a network as an ONNX file or as torch.export's, written only if it gives PyTorch's picture.

PyTorch is imported where a network is loaded, not before: what is wrong with arguments is said at once.
"""

import argparse
import io
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mambair
from mambair.commands.arguments import load_named_plugins
from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.commands.restore.run import make_folder
from mambair.errors import UserError
from mambair.options import add_plugin_argument
from mambair.runtime.files import FileMark, sha256_of, write_unless_changed
from mambair.runtime.log_setup import console, setup_logging
from mambair.weights.published import PUBLISHED
from mambair.weights.sources import cache_folder, find_weights, read_purpose, shipped_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mambair.commands.export.checking import Agreement, Run

logger = logging.getLogger(__name__)

ONNX, TORCH = ".onnx", ".pt2"
METADATA_FILE = "mambair.json"
"""Beside the graph in a .pt2 file, with what an .onnx file has in its metadata."""

DESCRIPTION = """\
Write a network as a file that runs without this package: ONNX for ONNX Runtime, OpenVINO, TensorRT and what builds on
them, or .pt2 for torch.export. The file takes any number of images of any size, or with --size one of that size.

The command ends by running the file on a photo. It is kept only if its picture is PyTorch's: within 1e-4 of the largest
value and 0.01 dB, or 0.05 dB in half precision. Otherwise the command says where the two part, and leaves no file."""


class Wanted(NamedTuple):
    """What is to be written."""

    target: Path
    size: tuple[int, int] | None
    """(H, W), or None for any."""
    half: bool


def size_argument(text: str) -> tuple[int, int]:
    """256 or 320x240 (width x height) as (H, W), for argparse."""
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size in pixels such as 256 or 320x240")
    return int(match[2] or match[1]), int(match[1])


def build_parser() -> argparse.ArgumentParser:
    """The command line of `mambair export`."""
    parser = argparse.ArgumentParser(
        "mambair export", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", metavar="WEIGHTS", help=".pth or .safetensors, or a name of `mambair weights list`")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.onnx|FILE.pt2")
    parser.add_argument(
        "--size", type=size_argument, metavar="W[xH]", help="one size, in pixels of the input; default: any size"
    )
    parser.add_argument("--fp16", action="store_true", help="weights and most of the work in half precision")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    add_plugin_argument(parser)
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 for what cannot be exported."""
    arguments = build_parser().parse_args(argv)
    setup_logging(None, 0)
    target: Path = arguments.output
    if target.suffix.lower() not in (ONNX, TORCH):
        raise UserError(f"{target}: the output must end in {ONNX} or {TORCH}")
    if target.is_dir():
        raise UserError(f"{target}: is a folder; pass a file in it after -o")
    earlier = FileMark.of(target)
    if earlier is not None and not arguments.overwrite:
        raise UserError(f"{target}: exists; pass --overwrite to replace it")
    load_named_plugins(arguments)
    source = find_weights(arguments.weights)
    make_folder(target.parent)
    # Imports PyTorch, which takes seconds.
    from mambair.weights.loading import load_network

    network = load_network(source)
    check_exportable(network)
    wanted = Wanted(target, arguments.size, arguments.fp16)
    with write_unless_changed(target, earlier) as temporary:
        write_content(b"", temporary, target)  # minutes before there is anything to write
        agreements = export(network, describe(network, source, wanted), wanted, temporary)
    for agreement in agreements:
        console.print(f"as PyTorch at {agreement}", markup=False)
    console.print(f"{target}: {target.stat().st_size:,} bytes, SHA-256 {sha256_of(target)}", markup=False)
    return OK


def check_exportable(network: "nn.Module") -> None:
    """Raise UserError for a network that no file can stand for."""
    from mambair.archs.network import hyperparameters_of

    if hyperparameters_of(network).get("routing") == "gumbel":
        raise UserError("routing: gumbel draws tokens at random, which a file cannot; export with routing argmax")


def describe(network: "nn.Module", source: Path, wanted: Wanted) -> dict[str, str]:
    """The metadata of the file; docs/export.md lists them."""
    from mambair.archs.network import traits_of
    from mambair.commands.export.tracing import OPSET
    from mambair.inference.onnx_network import PREFIX
    from mambair.weights.loading import network_options

    traits = traits_of(network)
    task, noise = read_purpose(source)
    mean = dict(network.named_buffers()).get("mean")
    means = [0.0] * traits.in_channels if mean is None else mean.flatten().tolist()
    ours = source in shipped_weights().values()
    published = source in {cache_folder() / each.file_name for each in PUBLISHED.values()}
    described = {
        "version": mambair.__version__,
        "options": json.dumps(network_options(network)),
        "scale": str(traits.scale),
        "channels": str(traits.in_channels),
        "size_multiple": str(traits.size_multiple),
        "task": task or ("sr" if traits.scale > 1 else "not stated"),
        "noise": "" if noise is None else str(noise),
        "size": "any" if wanted.size is None else f"{wanted.size[1]}x{wanted.size[0]}",
        "precision": "fp16" if wanted.half else "fp32",
        "opset": str(OPSET),
        "layout": "NCHW, RGB or gray, float32 in [0, 1]; not clipped",
        "mean": json.dumps([round(value, 6) for value in means]),
        "licence": "Apache-2.0" if ours or published else "that of the weights",
        "source": source.name,
        "source_sha256": sha256_of(source),
    }
    return {f"{PREFIX}{key}": value for key, value in described.items()}


def export(network: "nn.Module", metadata: dict[str, str], wanted: Wanted, path: Path) -> list["Agreement"]:
    """Write the file and check it. Raises UserError for a file whose picture is not PyTorch's."""
    from mambair.commands.export.checking import compare

    written = halved(network) if wanted.half else network
    write = write_onnx if wanted.target.suffix.lower() == ONNX else write_torch
    run = write(written, metadata, wanted, path)
    agreements = []
    for agreement in compare(network, run, wanted.size):
        if not agreement.holds(wanted.half):
            where = find_parting(network, written, metadata, wanted)
            raise UserError(f"{wanted.target}: is not written, its picture is not PyTorch's ({agreement}); {where}")
        agreements.append(agreement)
    return agreements


def write_content(content: bytes, path: Path, target: Path) -> None:
    """Write to `path`, which is to become `target`. Raises UserError where the system does not let it."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); pass another file after -o") from error


def halved(network: "nn.Module") -> "nn.Module":
    """A copy in half precision."""
    import copy

    return copy.deepcopy(network).half()


def write_onnx(
    network: "nn.Module",
    metadata: dict[str, str],
    wanted: Wanted,
    path: Path,
    stages: Sequence["nn.Module"] = (),
) -> "Run":
    """Write an ONNX file; returns what runs it in ONNX Runtime on the CPU."""
    import torch

    from mambair.commands.export.tracing import INPUT, to_onnx
    from mambair.inference.onnx_network import find_providers, open_session

    model = to_onnx(network, wanted.size, wanted.half, stages)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name, model.producer_version = "mambair", mambair.__version__
    content = model.SerializeToString()
    write_content(content, path, wanted.target)
    session = open_session(content, find_providers("cpu"))

    def run(lq: "torch.Tensor") -> list["torch.Tensor"]:
        return [torch.from_numpy(result) for result in session.run(None, {INPUT: lq.numpy()})]

    return run


def write_torch(
    network: "nn.Module",
    metadata: dict[str, str],
    wanted: Wanted,
    path: Path,
    stages: Sequence["nn.Module"] = (),
) -> "Run":
    """Write a file of torch.export; returns what runs it in PyTorch."""
    import torch

    from mambair.commands.export.tracing import quiet, trace, unguarded

    content = io.BytesIO()
    program = trace(network, wanted.size, wanted.half, stages)
    with quiet():
        torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(metadata)})
    write_content(content.getvalue(), path, wanted.target)
    content.seek(0)
    module = unguarded(torch.export.load(content))

    def run(lq: "torch.Tensor") -> Sequence["torch.Tensor"]:
        with torch.no_grad():
            return module(lq)

    return run


def find_parting(network: "nn.Module", written: "nn.Module", metadata: dict[str, str], wanted: Wanted) -> str:
    """Where PyTorch and the file part, in words: both are run once more with what every stage gives."""
    import tempfile

    import torch

    from mambair.commands.export.checking import LARGEST_ERROR, check_photos, parting, stages_of
    from mambair.commands.export.tracing import Traced

    lq = next(iter(check_photos(network, wanted.size)))[0]
    whole = Traced(network, False, list(stages_of(network).values()))
    with torch.inference_mode():
        expected = whole(lq)[1:]
    whole.release()
    write = write_onnx if wanted.target.suffix.lower() == ONNX else write_torch
    with tempfile.TemporaryDirectory() as folder:
        run = write(written, metadata, wanted, Path(folder) / wanted.target.name, list(stages_of(written).values()))
        found = run(lq)[1:]
    return parting(list(stages_of(network)), expected, found, 100 * LARGEST_ERROR if wanted.half else LARGEST_ERROR)
