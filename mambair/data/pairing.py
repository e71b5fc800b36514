"""Which images belong together, and whether they can be used: found out before the first iteration."""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from mambair.data.image_sources import (
    FolderSource,
    ImageEntry,
    ImageSource,
    format_template,
    read_meta_info,
    stem_in_template,
    stem_of,
)
from mambair.data.lmdb_store import LmdbSource
from mambair.errors import UserError
from mambair.imaging.files import printable
from mambair.imaging.headers import ImageHeader
from mambair.imaging.profiles import SAME_COLORS, color_difference, describe

logger = logging.getLogger(__name__)

Backend = Literal["disk", "lmdb"]

SHOWN_PROBLEMS = 20
_HEADER_THREADS = 16


@dataclass(frozen=True)
class Pair:
    """A ground-truth image and its low-quality partner; None where that is made on the fly."""

    gt: ImageEntry
    lq: ImageEntry | None = None

    @property
    def partner(self) -> ImageEntry:
        """The low-quality image of a pair that has one on disk."""
        assert self.lq is not None, self.gt.path
        return self.lq


@dataclass(frozen=True)
class Problem:
    """Something wrong with one image."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


@dataclass(frozen=True)
class Requirements:
    """What every pair must fulfil."""

    scale: int = 1
    """The ground truth is this many times as large as its partner."""
    color: bool = True
    """Images are read as colour, gray ones as three equal channels; otherwise as gray, whatever they have."""
    gt_size: int | None = None
    """Side of the largest patch that is cut from the ground truth."""
    judged: tuple[tuple[str, int], ...] = ()
    """Metrics with the side in pixels of the smallest ground truth that they can judge, borders included."""
    decode: bool = False
    """Decode every image, not only its header: slow, and finds all damage."""
    profiles: bool = False
    """The images of a pair must mean the same colours by equal pixels."""


def open_source(root: str | Path, backend: Backend, where: str) -> ImageSource:
    """The images below `root`; `where` is the option key to blame if there are none."""
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise UserError(f"{where}: {printable(root)}: {what}; give the folder that holds the images")
    is_lmdb = (root / "data.mdb").is_file()
    if backend == "lmdb":
        return LmdbSource(root)
    if is_lmdb:
        raise UserError(f"{where}: {printable(root)} is an LMDB; add io_backend: {{type: lmdb}}")
    return FolderSource(root)


def list_entries(
    roots: Sequence[str | Path],
    where: str,
    *,
    backend: Backend = "disk",
    meta_info_files: Sequence[str | Path] = (),
    filename_template: str = "{}",
) -> list[ImageEntry]:
    """The images of all roots, root by root in order; those that the meta-info files list, where there are any.

    Images whose names are not of the template's form are left out. Raises UserError, naming the option key `where`, for
    a missing or empty root.
    """
    if meta_info_files and len(meta_info_files) != len(roots):
        raise UserError(
            f"{where}: {len(roots)} roots but {len(meta_info_files)} files in meta_info_file; give one file per root"
        )
    entries: list[ImageEntry] = []
    for index, root in enumerate(roots):
        source = open_source(root, backend, where)
        if meta_info_files:
            names = [find_listed(source, line.name) for line in read_meta_info(meta_info_files[index])]
        else:
            names = source.names()
        if not names:
            raise UserError(
                f"{where}: {printable(root)} holds no images; give a folder with PNG, JPEG, BMP or TIFF files"
            )
        fitting = [name for name in names if stem_for_template(name, filename_template) is not None]
        if not fitting:
            raise UserError(
                f"{where}: {printable(root)} holds no images called {filename_template!r}, as filename_tmpl_gt says"
            )
        entries.extend(ImageEntry(source, name) for name in fitting)
    return entries


def find_listed(source: ImageSource, name: str) -> str:
    """The key of the image that a list calls `name`: the file of that very name, or, without an ending, the only one.

    Keys of databases have no endings.
    A name that fits none comes back as it is: whoever reads that image says that it is missing.
    """
    stem = stem_of(name)
    if isinstance(source, LmdbSource):
        return stem
    if stem != name:
        return name
    called = source.called(stem)
    return called[0] if len(called) == 1 else name


def stem_for_template(key: str, template: str) -> str | None:
    """The relative path of an image without its extension, and without what the template puts around the name."""
    folder, slash, name = stem_of(key).rpartition("/")
    stem = stem_in_template(template, name)
    return None if stem is None else folder + slash + stem


def pair_images(
    gt_roots: Sequence[str | Path],
    lq_roots: Sequence[str | Path],
    *,
    backend: Backend = "disk",
    meta_info_files: Sequence[str | Path] = (),
    filename_template: str = "{}",
    gt_template: str = "{}",
    where_gt: str = "dataroot_gt",
    where_lq: str = "dataroot_lq",
) -> tuple[list[Pair], list[Problem]]:
    """Every ground-truth image with its low-quality partner, and a problem for each that has none.

    The partner of `sub/baby.png` is `sub/<template filled with 'baby'>` in the low-quality root of the same position in
    the list. Of several images of that name the one of the same type is taken. Low-quality images without ground truth
    are not used.

    Args:
        gt_roots, lq_roots: folders or LMDBs, as many of each.
        backend: what the roots are.
        meta_info_files: one per root: the images to use; all if empty.
        filename_template: low-quality name for a ground-truth name, both without extension, such as '{}x2'.
        gt_template: the same for the ground truth's own names, such as '{}_HR'.
        where_gt, where_lq: the option keys, with file and line, that errors name.

    Raises:
        UserError: a root is missing or empty, or a meta-info entry or the template leads out of its root.
    """
    if len(gt_roots) != len(lq_roots):
        raise UserError(f"{where_lq}: {len(lq_roots)} roots but {len(gt_roots)} in dataroot_gt")
    _check_roots([*((root, where_gt) for root in gt_roots), *((root, where_lq) for root in lq_roots)], backend)
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for index, (gt_root, lq_root) in enumerate(zip(gt_roots, lq_roots, strict=True)):
        files = meta_info_files[index : index + 1] if meta_info_files else ()
        lq_source = open_source(lq_root, backend, where_lq)
        entries = list_entries(
            [gt_root], where_gt, backend=backend, meta_info_files=files, filename_template=gt_template
        )
        partners = _Partners(lq_source, filename_template, gt_template, {entry.key for entry in entries})
        for gt in entries:
            found = partners.of(gt)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                pairs.append(Pair(gt, found))
    return pairs, problems


class _Partners:
    """The low-quality images of one root, each for one ground-truth image."""

    def __init__(self, source: ImageSource, template: str, gt_template: str, gt_keys: Collection[str]) -> None:
        self.source, self.template, self.gt_template = source, template, gt_template
        self.gt_keys: dict[str, list[str]] = defaultdict(list)
        for key in sorted(gt_keys):
            self.gt_keys[self._wanted(key)].append(key)

    def _wanted(self, gt_key: str) -> str:
        """The partner's relative path without extension."""
        stem = stem_for_template(gt_key, self.gt_template)
        assert stem is not None, f"{gt_key} was listed by {self.gt_template}"
        folder, slash, name = stem.rpartition("/")
        return folder + slash + format_template(self.template, name)

    def of(self, gt: ImageEntry) -> ImageEntry | Problem:
        """The partner of an image, or why it has none."""
        wanted = self._wanted(gt.key)
        called = self.source.called(wanted)
        if not called:
            where = printable(str(self.source.root))
            return Problem(gt.path, f"no partner {wanted!r} (any image type) in {where}")
        rivals = [key for key in self.gt_keys[wanted] if key != gt.key]
        alike = [key for key in called if _type_of(key) == _type_of(gt.key)]
        # What is of the type of another ground-truth image of this name is that one's.
        free = [key for key in called if _type_of(key) not in map(_type_of, rivals)]
        chosen = alike or free
        if len(chosen) != 1 or len(rivals) >= len(called) > len(alike):
            what = f"is one of {1 + len(rivals)} images of this name" if rivals else "has several partners"
            shown = ", ".join(map(printable, called))
            return Problem(gt.path, f"{what}, and it cannot be told which of {shown} is its own; rename or remove some")
        return ImageEntry(self.source, chosen[0])


def _type_of(key: str) -> str:
    """The extension of a key."""
    return PurePosixPath(key).suffix


def _check_roots(roots: Sequence[tuple[str | Path, str]], backend: Backend) -> None:
    """Raise one UserError for all (root, option key) that cannot be opened."""
    errors = []
    for root, where in roots:
        try:
            open_source(root, backend, where)
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserError("\n".join(errors))


def inspect_pairs(
    pairs: Sequence[Pair], requirements: Requirements, on_progress: Callable[[int], None] | None = None
) -> list[Problem]:
    """What is wrong with the pairs, in their order; headers are read in parallel.

    Gray images where colour is expected are nothing wrong; how many there are is logged. `on_progress` is called with
    the number of pairs looked at since the last call.
    """
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        problems, gray = [], []
        for found, gray_path in pool.map(lambda pair: _inspect(pair, requirements), pairs):
            problems.extend(found)
            if gray_path is not None:
                gray.append(gray_path)
            if on_progress is not None:
                on_progress(1)
    if gray:
        logger.info(
            "%s: is gray and read as three equal channels; so are %d of %d images here in all",
            printable(gray[0]),
            len(gray),
            len(pairs),
        )
    return problems


def _inspect(pair: Pair, requirements: Requirements) -> tuple[list[Problem], str | None]:
    """The problems of one pair, and the path of an image that is gray where colour is expected."""
    entries = [pair.gt] if pair.lq is None else [pair.gt, pair.lq]
    headers, problems, gray = [], [], None
    for entry in entries:
        try:
            headers.append(entry.header())
            if requirements.color and headers[-1].channels < 3:
                gray = gray or entry.path
            if requirements.decode:
                entry.read("color" if requirements.color else "gray")
        except UserError as error:
            problems.append(Problem(entry.path, str(error).removeprefix(f"{printable(entry.path)}: ")))
    if len(headers) == len(entries):
        problems.extend(_size_problems(pair, headers, requirements))
    if requirements.profiles and not problems and pair.lq is not None:
        problems.extend(_profile_problems(pair.gt, pair.lq))
    return problems, gray


def _profile_problems(gt: ImageEntry, lq: ImageEntry) -> list[Problem]:
    """What is wrong with the colour profiles of one pair."""
    wanted, found = gt.color_profile(), lq.color_profile()
    difference = color_difference(wanted, found)
    if difference <= SAME_COLORS:
        return []
    return [
        Problem(
            lq.path,
            f"its colour profile ({describe(found)}) is not its ground truth's ({describe(wanted)}): equal pixels "
            f"differ by up to {difference} levels; convert one, or make the pair anew",
        )
    ]


def _size_problems(pair: Pair, headers: list[ImageHeader], requirements: Requirements) -> list[Problem]:
    """What is wrong with the sizes of one pair."""
    gt, scale = headers[0], requirements.scale
    size = f"{gt.height}x{gt.width}"
    expected = gt.height // scale, gt.width // scale
    problems = []
    if min(expected) < 1:
        problems.append(Problem(pair.gt.path, f"{size} pixels are too few for scale {scale}"))
    elif requirements.gt_size is not None and scale * min(expected) < requirements.gt_size:
        problems.append(Problem(pair.gt.path, f"{size} pixels are too few for gt_size {requirements.gt_size}"))
    for metric, side in requirements.judged:
        if scale * min(expected) < side:
            problems.append(
                Problem(
                    pair.gt.path,
                    f"{size} pixels are too few for {metric}, which needs {side} with its borders: "
                    "it is left out of the mean",
                )
            )
    if pair.lq is not None and (headers[1].height, headers[1].width) != expected:
        problems.append(
            Problem(
                pair.lq.path,
                f"{headers[1].height}x{headers[1].width} pixels do not fit its ground truth of {size} at scale "
                f"{scale}; expected {expected[0]}x{expected[1]}",
            )
        )
    return problems


def raise_problems(problems: Sequence[Problem], where: str) -> None:
    """One UserError that lists the problems (the first 20 of them) with their paths; nothing if there are none."""
    if not problems:
        return
    shown = [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        shown.append(f"  ... and {len(problems) - SHOWN_PROBLEMS} more")
    noun = "problem" if len(problems) == 1 else "problems"
    raise UserError("\n".join([f"{where}: {len(problems)} {noun} with its images:", *shown]))


def check_pairs(
    pairs: Sequence[Pair], requirements: Requirements, where: str, problems: Sequence[Problem] = ()
) -> None:
    """Inspect the pairs and raise one UserError for all that is wrong, `problems` found earlier included."""
    raise_problems([*problems, *inspect_pairs(pairs, requirements)], where)
