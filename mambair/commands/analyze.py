"""`mambair analyze`: complexity, effective receptive field and channel activation of networks; runs compared."""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import nn

from mambair.analysis.activation import ACTIVE_PART, channel_activations, summarise
from mambair.analysis.complexity import SCAN_RULE, Complexity, measure_complexity
from mambair.analysis.erf import THRESHOLDS, centred_squares, contribution_map, support_size
from mambair.analysis.figures import (
    require_matplotlib,
    save_activation_figure,
    save_receptive_field_figure,
    save_scaling_figure,
)
from mambair.analysis.networks import is_untrained, load_any_network, sample_crops, to_device, warn_random_weights
from mambair.analysis.scaling import LIGHT, PAPER_LIGHT, flops_by_size
from mambair.archs import build_network
from mambair.archs.network import traits_of
from mambair.commands.arguments import load_named_plugins, positive_argument
from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.commands.runs_analysis import add_run_parsers, run_curves, run_list
from mambair.errors import UserError
from mambair.inference.restorer import find_device
from mambair.options import add_plugin_argument
from mambair.options.plugins import load_plugins_of
from mambair.options.yaml_reader import read_yaml
from mambair.runtime.files import atomic_write
from mambair.runtime.log_setup import console, setup_logging

logger = logging.getLogger(__name__)

OUTPUT_SIZE = (720, 1280)
SCALING_SIDES = (48, 60, 72, 84, 96, 108, 120, 132)
KILO, GIGA = 1e3, 1e9


def size_argument(text: str) -> tuple[int, int]:
    """'1280x720' -> (720, 1280), for argparse."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, such as 1280x720")
    return int(height), int(width)


def build_parser() -> argparse.ArgumentParser:
    """The command line of `mambair analyze`."""
    parser = argparse.ArgumentParser("mambair analyze", description="The analyses of the paper, for any network.")
    kinds = parser.add_subparsers(dest="kind", required=True)

    complexity = kinds.add_parser("complexity", help="parameters, MACs and FLOPs in two countings (Table 4, Fig. 5)")
    complexity.add_argument(
        "--output-size", type=size_argument, default=OUTPUT_SIZE, metavar="WxH", help="default 1280x720"
    )
    complexity.add_argument("--plot", type=Path, metavar="FILE", help="draw cost against input size (.png, .pdf, .svg)")

    erf = kinds.add_parser("erf", help="effective receptive field (Fig. 1)")
    activation = kinds.add_parser("activation", help="channel activation of the last VSSM or ASSM (Fig. 3b)")
    for measured in (erf, activation):
        measured.add_argument("--images", type=Path, metavar="FOLDER", help="photos; default: those of scikit-image")
        measured.add_argument("--count", type=positive_argument, default=20, help="images averaged over (default 20)")
        measured.add_argument("--size", type=positive_argument, default=120, help="side of their crops (default 120)")
        measured.add_argument("--seed", type=int, default=0, help="of the crops, and of random weights")
        measured.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")
        measured.add_argument(
            "-o", "--output", type=Path, metavar="FILE", help="figure (.png, .pdf, .svg); numbers beside it"
        )
    add_run_parsers(kinds)
    for each in (complexity, erf, activation):
        add_plugin_argument(each)
        each.add_argument(
            "--weights", nargs="+", default=[], metavar="FILE", help="weight files, or names of `mambair weights list`"
        )
        each.add_argument(
            "-opt", "--options", type=Path, nargs="+", default=[], metavar="FILE", help="network_g of option files"
        )
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 for wrong arguments."""
    arguments = build_parser().parse_args(argv)
    setup_logging(None, 0)
    if arguments.kind in ("curves", "runs"):
        {"curves": run_curves, "runs": run_list}[arguments.kind](arguments)
        return OK
    load_named_plugins(arguments)
    {"complexity": run_complexity, "erf": run_receptive_field, "activation": run_activation}[arguments.kind](arguments)
    return OK


def named_networks(arguments: argparse.Namespace) -> dict[str, nn.Module]:
    """The networks of --weights and -opt by the names of their files."""
    networks = {Path(name).stem: load_any_network(name) for name in arguments.weights}
    for path in arguments.options:
        data = read_yaml(path).data
        load_plugins_of(data, path, f"{path}: plugins")
        if not isinstance(data.get("network_g"), dict):
            raise UserError(f"{path}: has no block network_g")
        networks[path.stem] = build_network(data["network_g"])
    return networks


def run_complexity(arguments: argparse.Namespace) -> None:
    """Print both countings of each network, and draw the growth of cost if asked to."""
    if arguments.plot is not None:
        require_matplotlib()
    networks = named_networks(arguments)
    if not networks:
        for scale in (2, 3, 4):
            networks[f"light x{scale}, as in the paper's Table 4"] = build_network(PAPER_LIGHT | {"upscale": scale})
        for scale in (2, 3, 4):
            networks[f"light x{scale}, as released"] = build_network(LIGHT | {"upscale": scale})
    height, width = arguments.output_size
    table = Table(
        "network", "input", "module parameters", "module MACs", "all parameters", "all FLOPs", "of these, scan"
    )
    table.title = f"Cost of an output of {width}x{height}: module counting, then full counting"
    for name, network in networks.items():
        scale, in_channels, _ = traits_of(network)
        table.add_row(name, *_row(measure_complexity(network, height // scale, width // scale, in_channels)))
    console.print(table)
    console.print(
        "module counting: what thop counts, and the paper prints; Linear, Conv2d, LayerNorm, pooling modules only.\n"
        f"full counting: all parameters; 2 FLOPs per MAC of every product; scan: {SCAN_RULE}.",
        markup=False,
    )
    if arguments.plot is not None:
        save_scaling_figure(arguments.plot, SCALING_SIDES, flops_by_size(SCALING_SIDES))
        console.print(f"figure: {arguments.plot}", markup=False)


def _row(cost: Complexity) -> list[str]:
    return [
        f"{cost.width}x{cost.height}",
        f"{cost.module_parameters / KILO:,.0f}K",
        f"{cost.module_macs / GIGA:.1f}G",
        f"{cost.parameters:,}",
        f"{cost.flops / GIGA:.1f}G",
        f"{cost.scan_flops / GIGA:.1f}G",
    ]


def measured_networks(arguments: argparse.Namespace) -> dict[str, nn.Module]:
    """`named_networks` on the device of the command; warns where weights are random."""
    if arguments.output is not None:
        require_matplotlib()
    if not arguments.weights and not arguments.options:
        raise UserError("pass --weights FILE ..., or -opt FILE ... for networks with random weights")
    torch.manual_seed(arguments.seed)
    networks = named_networks(arguments)
    random = {path.stem for path in arguments.options}
    for name, network in networks.items():
        if name in random or is_untrained(network):
            warn_random_weights(name)
    device = find_device(arguments.device)
    return {name: network.to(device).eval().requires_grad_(False) for name, network in networks.items()}


def crops_for(network: nn.Module, arguments: argparse.Namespace) -> list[torch.Tensor]:
    """The images that every network of a command sees alike."""
    rng = np.random.default_rng(arguments.seed)
    crops = sample_crops(arguments.count, arguments.size, traits_of(network).in_channels, rng, arguments.images)
    return to_device(crops, next(network.parameters()).device)


def run_receptive_field(arguments: argparse.Namespace) -> None:
    """Print the size of each network's effective receptive field, and draw it if asked to."""
    networks = measured_networks(arguments)
    maps = {}
    numbers: dict[str, Any] = {}
    table = Table("network", "support", *(f"{share:.0%}" for share in THRESHOLDS))
    area = f"{arguments.size}x{arguments.size}"
    table.title = f"Side of the centred square with a share of the contributions, and its part of {area}"
    for name, network in networks.items():
        maps[name] = contribution_map(network, crops_for(network, arguments), traits_of(network).scale)
        rows, columns = support_size(maps[name])
        squares = centred_squares(maps[name])
        table.add_row(name, f"{columns}x{rows}", *(f"{square.side} ({square.area:.1%})" for square in squares))
        numbers[name] = {"support": [rows, columns], "squares": [asdict(square) for square in squares]}
    console.print(table)
    if arguments.output is not None:
        save_receptive_field_figure(arguments.output, maps)
        write_numbers(arguments.output, numbers)


def run_activation(arguments: argparse.Namespace) -> None:
    """Print how many channels each network uses, and draw their activations if asked to."""
    networks = measured_networks(arguments)
    values = {name: channel_activations(network, crops_for(network, arguments)) for name, network in networks.items()}
    table = Table("network", "channels", f"active (at least {ACTIVE_PART:.0%} of the strongest)", "effective channels")
    for name, activations in values.items():
        summary = summarise(activations)
        table.add_row(name, str(summary.channels), f"{summary.active:.1%}", f"{summary.effective:.1f}")
    console.print(table)
    if arguments.output is not None:
        save_activation_figure(arguments.output, values)
        summaries = {name: asdict(summarise(activations)) for name, activations in values.items()}
        write_numbers(arguments.output, summaries)


def write_numbers(figure: Path, numbers: Mapping[str, Any]) -> None:
    """Write the numbers of a figure as JSON beside it."""
    path = figure.with_suffix(".json")
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2), encoding="utf-8")
    console.print(f"figure: {figure}, numbers: {path}", markup=False)
