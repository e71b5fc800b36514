"""SIDD's blocks and DND's photos in MATLAB files: reading them, and writing what their servers take.

Shapes: SIDD has 40 images of 32 blocks of 256 x 256 pixels, (40, 32, 256, 256, 3) uint8; DND has 50 photos with 20
boxes of 512 x 512 pixels each, floats in [0, 1].
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from mambair.commands.data.jobs import Job
from mambair.commands.data.sidd import GT_FOLDER, NOISY_FOLDER
from mambair.errors import UserError
from mambair.imaging.files import write_image
from mambair.imaging.headers import printable
from mambair.runtime.files import atomic_write

DND_EVALUATION = "1.0"


def read_sidd_blocks(path: Path) -> np.ndarray:
    """The (images, blocks, H, W, 3) uint8 array of a file such as ValidationNoisyBlocksSrgb.mat."""
    try:
        content = scipy.io.loadmat(path)
    except FileNotFoundError as error:
        raise UserError(f"{printable(path)}: no such file") from error
    except (ValueError, TypeError, IndexError, OSError, NotImplementedError, MatReadError) as error:
        raise UserError(f"{printable(path)}: not a MATLAB file of SIDD blocks ({error})") from error
    arrays = [value for value in content.values() if isinstance(value, np.ndarray)]
    for array in arrays:
        if array.dtype == np.uint8 and array.ndim == 5 and array.shape[-1] == 3:
            return array
    found = ", ".join(f"{array.dtype} {array.shape}" for array in arrays) or "nothing"
    raise UserError(
        f"{printable(path)}: expected uint8 blocks of shape (40, 32, 256, 256, 3), found {found}; "
        "give the sRGB file, such as ValidationNoisyBlocksSrgb.mat"
    )


def block_jobs(noisy_file: Path, output: Path) -> list[Job]:
    """The validation blocks as PNG pairs <output>/input_crops and <output>/target_crops, <image>_<block>.png from 1.

    The clean blocks are looked for beside the noisy ones: ValidationGtBlocksSrgb.mat. A job writes one image's blocks.
    """
    if "NoisyBlocks" not in noisy_file.name:
        raise UserError(f"{printable(noisy_file)}: expected a file called ...NoisyBlocksSrgb.mat")
    gt_file = noisy_file.with_name(noisy_file.name.replace("NoisyBlocks", "GtBlocks"))
    if not gt_file.is_file():
        raise UserError(f"{printable(gt_file)}: missing; it holds the clean partners of {noisy_file.name}")
    jobs = []
    truths, noisy = read_sidd_blocks(gt_file), read_sidd_blocks(noisy_file)
    if truths.shape != noisy.shape:
        raise UserError(f"{printable(gt_file)}: has blocks {truths.shape}, but {noisy_file.name} has {noisy.shape}")
    for source, blocks, part in ((gt_file, truths, GT_FOLDER), (noisy_file, noisy, NOISY_FOLDER)):
        for image in range(len(blocks)):
            names = (f"{image + 1:04d}_{block + 1:02d}.png" for block in range(blocks.shape[1]))
            targets = tuple(output / part / name for name in names)
            jobs.append(Job(source, targets, partial(_write_blocks, targets, blocks[image])))
    return jobs


def _write_blocks(targets: tuple[Path, ...], blocks: np.ndarray) -> None:
    for target, block in zip(targets, blocks, strict=True):
        write_image(target, block)


def write_sidd_submission(path: Path, blocks: np.ndarray, seconds_per_megapixel: float, method: str) -> None:
    """SubmitSrgb.mat as SIDD's server takes it: cells (images, blocks) of (H, W, 3) uint8, time and a description."""
    cells = np.empty(blocks.shape[:2], dtype=object)
    for image, block in np.ndindex(*cells.shape):
        cells[image, block] = blocks[image, block]
    content = {
        "DenoisedBlocksSrgb": cells,
        "TimeMPSrgb": seconds_per_megapixel,
        "OptionalData": {"MethodName": method},
    }
    _save(path, content)


def write_dnd_submission(path: Path, crops: list[np.ndarray]) -> None:
    """One photo's file for DND's server: `Idenoised`, a cell of the (H, W, 3) float32 crops in [0, 1], box by box."""
    cells = np.empty(len(crops), dtype=object)
    for box, crop in enumerate(crops):
        cells[box] = crop.astype(np.float32)
    _save(path, {"Idenoised": cells, "israw": False, "eval_version": DND_EVALUATION})


def _save(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        scipy.io.savemat(temporary, content, do_compression=True)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError("DND's files are HDF5: install h5py (pip install 'mambair[dnd]')") from error
    return h5py


def read_dnd_boxes(folder: Path) -> list[np.ndarray]:
    """Of each photo the boxes (20, 4) to denoise, (top, left, bottom, right) from 0, ends excluded; from info.mat."""
    path = folder / "info.mat"
    try:
        with _h5py().File(path, "r") as file:
            references = np.asarray(file["info"]["boundingboxes"]).ravel()
            boxes = [np.asarray(file[reference]).T for reference in references]
    except (OSError, KeyError) as error:
        raise UserError(f"{printable(path)}: missing or not DND's info.mat ({error})") from error
    # MATLAB counts from 1 and includes ends.
    return [(box - [1, 1, 0, 0]).round().astype(int) for box in boxes]


def read_dnd_photo(folder: Path, number: int) -> np.ndarray:
    """Noisy photo `number` (from 1), float32 (H, W, 3) in [0, 1]."""
    path = folder / "images_srgb" / f"{number:04d}.mat"
    try:
        with _h5py().File(path, "r") as file:
            return np.ascontiguousarray(np.asarray(file["InoisySRGB"], dtype=np.float32).T)
    except (OSError, KeyError) as error:
        raise UserError(f"{printable(path)}: missing or not a DND photo ({error})") from error
