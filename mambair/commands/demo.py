"""`mambair demo`: a local page to drop an image on, through Gradio (the extra `demo`)."""

import argparse
import functools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.errors import UserError
from mambair.imaging.photo import read_photo, write_photo
from mambair.imaging.pixels import to_uint8
from mambair.runtime.log_setup import console, setup_logging
from mambair.weights.sources import (
    cache_folder,
    find_weights,
    published_name,
    read_purpose,
    read_scale,
    served_by,
    shipped_weights,
)
from mambair.weights.tasks import DEFAULT_TASK, TASKS, task_name

if TYPE_CHECKING:
    import gradio

    from mambair.inference.restorer import Restorer

TITLE = "MambaIR: restore an image"
INTRODUCTION = "Drop an image, choose weights, press Restore. Everything happens on this computer."
SHOWN_SIDE = 1600
"""The slider shows at most this many pixels a side; the download has them all."""
KEEP_SECONDS = 24 * 3600
MODELS_KEPT = 2


def build_parser() -> argparse.ArgumentParser:
    """The command line of `mambair demo`."""
    parser = argparse.ArgumentParser("mambair demo", description="A local page to try weights on images.")
    parser.add_argument(
        "--weights", nargs="+", default=[], metavar="FILE", help="weights to offer, besides those in package and cache"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 opens the page to the network"
    )
    parser.add_argument("--port", type=int, default=None, help="default: the first free one from 7860 on")
    parser.add_argument("--browser", action="store_true", help="open the page in a browser")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C; returns 0, 2 for wrong arguments."""
    arguments = build_parser().parse_args(argv)
    setup_logging(None, 0)
    with tempfile.TemporaryDirectory(prefix="mambair-demo-") as folder:
        page = build_page(offered_weights(arguments.weights), arguments.device, Path(folder))
        try:
            page.launch(
                server_name=arguments.host,
                server_port=arguments.port,
                inbrowser=arguments.browser,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
            )
        except OSError as error:
            raise UserError(
                f"cannot serve at {arguments.host}:{arguments.port} ({error}); try another --port"
            ) from error
        try:
            console.print(f"The page is at {page.local_url} (Ctrl-C ends it)", markup=False)
            page.block_thread()
        except KeyboardInterrupt:  # before or after the part in which the page looks out for it
            page.close(verbose=False)
    return OK


def offered_weights(named: Sequence[str]) -> list[str]:
    """Weight files for the page's list: those named, those in the package, those in the cache.

    Raises UserError if there are none, and for a name that leads to no file.
    """
    found = [*map(find_weights, named), *shipped_weights().values()]
    found += sorted(path for path in cache_folder().glob("*") if path.suffix in (".pth", ".safetensors"))
    if not found:
        raise UserError("there are no weights to offer; pass --weights FILE, or fetch some: mambair weights list")
    return [str(path) for path in dict.fromkeys(found)]


def shown_names(weights: Sequence[str]) -> list[tuple[str, str]]:
    """(what the list shows, path): names without folders, unless two are the same, after the task that they state."""
    names = [Path(path).stem for path in weights]
    shown = []
    for name, path in zip(names, weights, strict=True):
        label, task = name if names.count(name) == 1 else path, stated_task(Path(path))
        shown.append((f"{task}: {TASKS[task].hint} ({label})" if task else label, path))
    return shown


def stated_task(path: Path) -> str | None:
    """The task that a weight file states, by its name; None where it states none."""
    return task_name(read_purpose(path)[0], read_scale(path))


def task_help() -> str:
    """Markdown: the tasks with a line on when to use which, and how to get weights for those that have none here."""
    lines = []
    for name, task in TASKS.items():
        if name in (DEFAULT_TASK, "photo"):  # sr is one of x2, x3 and x4, photo is photo_x1
            continue
        suggestion = published_name(name, None)
        missing = f"not here yet: `mambair weights get {suggestion}`" if suggestion else "none here, and none published"
        here = served_by(name)
        lines.append(f"- **{name}**: {task.hint} ({missing if here is None else here.stem})")
    return "\n".join(lines)


@functools.lru_cache(maxsize=MODELS_KEPT)
def cached_model(weights: str, device: str, ensemble: bool) -> "Restorer":
    """The model for these settings, loaded once."""
    from mambair.inference.restorer import load_model

    return load_model(weights, device=device, ensemble=ensemble)


def restore_file(source: str, restorer: "Restorer", folder: Path) -> tuple[Image.Image, Image.Image, Path, str]:
    """Restore an image file into a new folder below `folder` as PNG.

    Returns the input, enlarged to the result's size, and the result, both as 8-bit images for the screen, the
    file of the result with its full depth and size, and what was done in words.
    """
    photo = read_photo(source)
    start = time.perf_counter()
    restored = restorer.restore(photo.pixels)
    seconds = time.perf_counter() - start
    # A folder for each result: photos of one name, from two pages, are as many downloads.
    folder.mkdir(parents=True, exist_ok=True)
    target = Path(tempfile.mkdtemp(dir=folder)) / f"{Path(source).stem}_restored.png"
    write_photo(target, replace(photo, pixels=restored, further=(), animation=None))
    after = _for_screen(restored)
    before = _for_screen(photo.pixels).resize(after.size, Image.Resampling.BICUBIC)
    sizes = " to ".join(f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in (photo.pixels, restored))
    return before, after, target, f"{sizes} pixels, in {seconds:.1f} s on {restorer.device}"


def _for_screen(pixels: np.ndarray) -> Image.Image:
    pixels = to_uint8(pixels)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image = image.convert("RGBA" if pixels.shape[2] in (2, 4) else "RGB")
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return image


def build_page(weights: Sequence[str], device: str, folder: Path) -> "gradio.Blocks":
    """The page: image in, weights to choose, before/after slider and download out; results are kept in `folder`."""
    if find_spec("gradio") is None:
        raise UserError("the page needs Gradio; install it with: pip install 'mambair[demo]'")
    import gradio

    def restore(source: str | None, chosen: str, ensemble: bool) -> tuple[tuple[Image.Image, Image.Image], str, str]:
        if source is None:
            raise gradio.Error("Drop an image first.", print_exception=False)
        try:
            before, after, target, done = restore_file(source, cached_model(chosen, device, ensemble), folder)
        except UserError as error:  # by the image's own name, not by that of the page's copy
            message = str(error).replace(source, Path(source).name)
            raise gradio.Error(message, print_exception=False) from error
        return (before, after), str(target), done

    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEEP_SECONDS, KEEP_SECONDS)) as page:
        gradio.Markdown(f"# {TITLE}\n{INTRODUCTION}")
        with gradio.Row():
            with gradio.Column(scale=1):
                source = gradio.Image(
                    type="filepath",
                    image_mode=None,  # the file as it is: 16 bits, alpha, profile
                    label="Image",
                    sources=["upload", "clipboard"],
                    elem_id="source",
                )
                chosen = gradio.Dropdown(shown_names(weights), value=weights[0], label="Weights", elem_id="weights")
                ensemble = gradio.Checkbox(label="Average over 8 orientations (8 times slower)", elem_id="ensemble")
                with gradio.Accordion("Which network for what", open=False):
                    gradio.Markdown(task_help(), elem_id="tasks")
                button = gradio.Button("Restore", variant="primary", elem_id="restore")
            with gradio.Column(scale=2):
                slider = gradio.ImageSlider(label="Before | after", type="pil", format="png", elem_id="result")
                done = gradio.Markdown(elem_id="done")
                download = gradio.File(label="Download", elem_id="download")
        button.click(restore, [source, chosen, ensemble], [slider, download, done], concurrency_limit=1)
    return page
