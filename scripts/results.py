"""Compare networks on images. (Runs are compared by `mambair analyze curves`.)

python scripts/results.py crops butterfly.png baby.png --weights MambaIR=a.pth SwinIR=b.pth --figure crops.png
    the images made smaller by MATLAB's bicubic and restored, the busiest crop of each beside the ground truth;
    decibels are those of the whole image, on the Y channel
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mambair.archs.build import build_network
from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.commands.runs_analysis import split_named
from mambair.errors import UserError
from mambair.imaging.files import read_image, write_image
from mambair.imaging.panels import busiest_crop, panel_row, stack_rows
from mambair.imaging.resize import crop_to_multiple, imresize
from mambair.inference.restorer import Restorer, find_device
from mambair.metrics import calculate_psnr
from mambair.weights.loading import load_network
from mambair.weights.sources import weights_called

CROP = 96
ZOOM = 3


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    crops = actions.add_parser("crops", help="figure of restored crops")
    crops.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="ground truth")
    crops.add_argument("--weights", nargs="+", required=True, metavar="NAME=FILE", help="networks of one scale")
    crops.add_argument("--device", default="auto")
    crops.add_argument("--crop", type=int, default=CROP, help="side in pixels (default %(default)s)")
    crops.add_argument("--zoom", type=int, default=ZOOM, help="times that crops are enlarged (default %(default)s)")
    crops.add_argument("--figure", type=Path, required=True, help=".png")
    return parser


def load_named(arguments: Sequence[str], device: str) -> dict[str, Restorer]:
    """Networks by the names that NAME=FILE gives them."""
    models = {
        name: Restorer(load_any(Path(path)), device=find_device(device))
        for name, path in split_named(arguments, "--weights", "FILE").items()
    }
    if len({model.scale for model in models.values()}) > 1:
        raise UserError("--weights: the networks have different scales; compare those of one")
    return models


def load_any(path: Path):
    """A network of this package, or of spandrel's, from its weights, a file or a name of `mambair weights list`."""
    path = weights_called(str(path)) or path
    try:
        return load_network(path)
    except UserError as error:
        if not path.is_file():
            raise
        try:
            return build_network({"type": "spandrel", "path": str(path)})
        except UserError as other:
            raise UserError(f"{error}; and not by spandrel: {other}") from None


def comparison_row(path: Path, models: dict[str, Restorer], size: int, zoom: int) -> Image.Image:
    """Bicubic | each network | ground truth of one image's busiest crop, captioned with PSNR (Y, whole image)."""
    scale = next(iter(models.values())).scale
    truth = crop_to_multiple(read_image(path), scale)
    if min(truth.shape[:2]) < size:
        raise UserError(f"{path}: is smaller than the crop of {size} pixels; pass --crop")
    small = imresize(truth, 1 / scale)
    restored = {"bicubic": imresize(small, scale)}
    restored |= {name: np.asarray(model.restore(small)) for name, model in models.items()}
    panels = {
        f"{name} {calculate_psnr(image, truth, scale, test_y_channel=True):.2f} dB": image
        for name, image in restored.items()
    }
    panels[f"ground truth, {image_name(path)}"] = truth
    return panel_row(panels, busiest_crop(truth, size, scale), size, zoom)


def image_name(path: Path) -> str:
    """Set5 butterfly for datasets/Set5/HR/butterfly.png; the file's name alone in folders laid out otherwise."""
    folder = path.absolute().parent
    return f"{folder.parent.name} {path.stem}" if folder.name == "HR" else path.stem


def write_crops(arguments: argparse.Namespace) -> None:
    """The figure of crops."""
    models = load_named(arguments.weights, arguments.device)
    rows = [comparison_row(path, models, arguments.crop, arguments.zoom) for path in arguments.images]
    write_image(arguments.figure, stack_rows(rows))
    print(f"written: {arguments.figure}")


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    {"crops": write_crops}[arguments.action](arguments)
    return OK


if __name__ == "__main__":
    sys.exit(main())
