"""Denoised results in the files that the servers of the SIDD and DND benchmarks take."""

import time
from pathlib import Path

import numpy as np

from mambair.commands.data.blocks import (
    read_dnd_boxes,
    read_dnd_photo,
    read_sidd_blocks,
    write_dnd_submission,
    write_sidd_submission,
)
from mambair.commands.data.jobs import progress_bar
from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.inference.restorer import Restorer
from mambair.runtime.files import FileMark, write_unless_changed
from mambair.runtime.log_setup import console


def submit_sidd(restorer: Restorer, noisy_file: Path, output: Path, method: str, overwrite: bool) -> None:
    """Denoise BenchmarkNoisyBlocksSrgb.mat and write SubmitSrgb.mat; results are rounded to 8 bits, as SIDD's are."""
    earlier = FileMark.of(output)
    if earlier is not None and not overwrite:
        raise UserError(f"{printable(output)}: exists already; name another file or give --overwrite")
    noisy = read_sidd_blocks(noisy_file)
    restored = np.empty_like(noisy)
    started = time.perf_counter()
    with progress_bar() as progress:
        bar = progress.add_task("SIDD", total=noisy.shape[0] * noisy.shape[1])
        for image, block in np.ndindex(*noisy.shape[:2]):
            restored[image, block] = restorer.restore(noisy[image, block])
            progress.advance(bar)
    megapixels = noisy.size / 3 / 1e6
    seconds = (time.perf_counter() - started) / megapixels
    with write_unless_changed(output, earlier) as temporary:
        write_sidd_submission(temporary, restored, seconds, method)
    console.print(f"{noisy.shape[0] * noisy.shape[1]} blocks denoised: {output}", markup=False)


def submit_dnd(restorer: Restorer, folder: Path, output: Path, overwrite: bool) -> None:
    """Denoise the boxes of all DND photos and write <output>/0001.mat ...; a photo whose file is there is left out.

    Results stay floats: rounding to 8 bits would cost about a twentieth of a decibel at 40 dB.
    """
    boxes = read_dnd_boxes(folder)
    with progress_bar() as progress:
        bar = progress.add_task("DND", total=len(boxes))
        for number, photo_boxes in enumerate(boxes, start=1):
            target = output / f"{number:04d}.mat"
            if overwrite or not target.exists():
                photo = read_dnd_photo(folder, number)
                crops = [photo[top:bottom, left:right] for top, left, bottom, right in photo_boxes]
                write_dnd_submission(target, [restorer.restore(crop) for crop in crops])
            progress.advance(bar)
    console.print(f"{len(boxes)} photos denoised: {output}", markup=False)
