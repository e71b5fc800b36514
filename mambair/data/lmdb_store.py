"""LMDB databases of images in BasicSR's layout: encoded files by name without extension, and a meta_info.txt.

Reading is lock-free and read-only, and every process opens its own environment, so any number of loader processes,
forked or spawned, may read one database.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import lmdb

from mambair.data.image_sources import MetaLine, check_inside, read_meta_info, stem_of
from mambair.errors import UserError
from mambair.imaging.files import decode_image, encode_image, list_images, read_bytes
from mambair.imaging.headers import ImageHeader, parse_header, printable
from mambair.runtime.claims import claimed, lock_beside
from mambair.runtime.files import TEMPORARY_PREFIX

META_FILE = "meta_info.txt"
DATA_FILE = "data.mdb"
_MAX_KEY_BYTES = 511
_IMAGES_PER_TRANSACTION = 32
_INITIAL_MAP_BYTES = 64 * 2**20

# LMDB allows one environment per database and process; data sets that share a database share it.
_environments: dict[str, tuple[int, lmdb.Environment]] = {}


def _environment(root: Path) -> lmdb.Environment:
    """This process's environment of a database, opened at the first call."""
    key = os.path.realpath(root)
    if key in _environments:
        owner, environment = _environments[key]
        if owner == os.getpid():
            return environment
        # inherited through fork: not to be used, but harmless to close as there are no locks
        environment.close()
    try:
        environment = lmdb.open(key, readonly=True, lock=False, readahead=False, meminit=False, create=False)
    except lmdb.Error as error:
        raise UserError(f"{printable(root)}: not an LMDB ({error}); rebuild it with `mambair data lmdb`") from error
    # Reading beyond the end of a mapped file is no exception: the system kills the process.
    pages = environment.info()["last_pgno"] + 1
    if (root / DATA_FILE).stat().st_size < pages * environment.stat()["psize"]:
        environment.close()
        path = printable(root / DATA_FILE)
        raise UserError(f"{path}: truncated; copy it again, or rebuild it with `mambair data lmdb`")
    _environments[key] = (os.getpid(), environment)
    return environment


def _close(root: Path) -> None:
    """Close this process's environment of a database, if it has one."""
    _, environment = _environments.pop(os.path.realpath(root), (None, None))
    if environment is not None:
        environment.close()


@dataclass(frozen=True)
class LmdbSource:
    """Images in an LMDB; keys are relative paths without extension."""

    root: Path

    @cached_property
    def _lines(self) -> dict[str, MetaLine]:
        meta = self.root / META_FILE
        if not (self.root / DATA_FILE).is_file() or not meta.is_file():
            beside = self.root.with_name(f"{self.root.name}.lmdb")
            remedy = f"name {printable(beside)}" if beside.is_dir() else "build it with `mambair data lmdb`"
            missing = f"{DATA_FILE} or {META_FILE} is missing"
            raise UserError(f"{printable(self.root)}: not an image LMDB ({missing}); {remedy}")
        return {stem_of(line.name): line for line in read_meta_info(meta)}

    def names(self) -> list[str]:
        """The keys that the meta-info file lists."""
        return sorted(self._lines)

    def called(self, stem: str) -> list[str]:
        """`stem` itself if the database has it."""
        return [stem] if stem in self._lines else []

    def read_bytes(self, key: str) -> bytes:
        """The encoded image."""
        try:
            with _environment(self.root).begin() as transaction:
                data = transaction.get(key.encode())
        except lmdb.Error as error:
            raise UserError(f"{printable(self.root)}: LMDB cannot be read ({error})") from error
        if data is None:
            raise UserError(
                f"{printable(self.root)}: key '{printable(key)}' of {META_FILE} is not in the database; "
                "rebuild it with `mambair data lmdb`"
            )
        return data

    def header(self, key: str) -> ImageHeader:
        """Size and channels from the meta-info file, from the image where that does not state them."""
        if key not in self._lines:
            raise UserError(f"{printable(self.root)}: '{printable(key)}' is not in its {META_FILE}")
        size = self._lines[key].size
        if size is None or len(size) < 3:
            return parse_header(self.read_bytes(key), self.root / key)
        height, width, channels = size
        return ImageHeader(height, width, channels, format="LMDB", orientation=1)


def build_lmdb(
    source: Path,
    destination: Path,
    *,
    names: Iterable[str] | None = None,
    png_level: int | None = None,
    workers: int = 8,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Store the images of a folder in a new LMDB, verify it, and return how many there are.

    Args:
        source: folder with the images.
        destination: the database's folder; its name ends in .lmdb by custom.
        names: relative paths to store; all images directly in the folder if left out.
        png_level: store everything as PNG of this compression level, 0 to 9; files as they are if left out.
        workers: threads that read and encode.
        on_progress: called with the number of images stored since the last call.

    Raises:
        UserError: the destination exists, an image cannot be decoded, or a name cannot be a key. Nothing is left
            behind then: the database is built beside its place and renamed when it is complete.
    """
    if destination.exists():
        raise UserError(f"{printable(destination)}: exists already; remove it or choose another name")
    names = [path.name for path in list_images(source)] if names is None else [check_inside(n, "names") for n in names]
    if not names:
        raise UserError(f"{printable(source)}: holds no images")
    _check_keys(names)
    building = destination.with_name(f"{TEMPORARY_PREFIX}{destination.name}")
    with claimed(lock_beside(destination), printable(destination), "wait for its end, or choose another name"):
        try:
            shutil.rmtree(building, ignore_errors=True)  # a killed process leaves it
            _fill(source, building, names, png_level, workers, on_progress or (lambda _: None))
            verify_lmdb(building)
            # LMDB knows environments by inode: open under its old name, it could not be opened by its new.
            _close(building)
            _give_name(building, destination)
        finally:
            _close(building)
            shutil.rmtree(building, ignore_errors=True)
    return len(names)


def _give_name(building: Path, destination: Path) -> None:
    try:
        building.rename(destination)  # an empty folder would be replaced, one with files never is
    except OSError as error:
        raise UserError(
            f"{printable(destination)}: cannot be given its name ({error.strerror}); remove what is there"
        ) from None


def _check_keys(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        key = stem_of(name)
        if "\n" in name or "\r" in name or len(key.encode()) > _MAX_KEY_BYTES:
            raise UserError(f"{name!r}: LMDB names have at most {_MAX_KEY_BYTES} bytes and no line breaks; rename it")
        if key in seen:
            raise UserError(f"'{seen[key]}' and '{name}' would have the same LMDB key '{key}'; rename one")
        seen[key] = name


def _fill(
    source: Path,
    folder: Path,
    names: list[str],
    png_level: int | None,
    workers: int,
    on_progress: Callable[[int], None],
) -> None:
    """Write data.mdb and the meta-info file into a new folder."""

    def load(name: str) -> tuple[str, bytes]:
        data = read_bytes(source / name)
        image = decode_image(data, "unchanged", name=source / name)
        if png_level is None:
            return name, data
        return stem_of(name) + ".png", encode_image(image, ".png", png_level=png_level)

    folder.mkdir()
    lines = []
    environment = lmdb.open(str(folder), map_size=_INITIAL_MAP_BYTES, lock=False)
    with environment, ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(names), _IMAGES_PER_TRANSACTION):
            images = list(pool.map(load, names[start : start + _IMAGES_PER_TRANSACTION]))
            _store(environment, [(stem_of(name).encode(), data) for name, data in images])
            for name, data in images:
                header = parse_header(data, source / name)
                level = "" if png_level is None else f" {png_level}"
                lines.append(f"{name} ({header.height},{header.width},{header.channels}){level}")
            on_progress(len(images))
        environment.sync(True)
    (folder / META_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _store(environment: lmdb.Environment, items: list[tuple[bytes, bytes]]) -> None:
    """Write items in one transaction, enlarging the database until they fit."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, data in items:
                    transaction.put(key, data)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def verify_lmdb(root: Path, *, decode: bool = False, on_progress: Callable[[int], None] | None = None) -> int:
    """Check that every listed image is there with its stated size (and, with `decode`, that it decodes whole).

    Returns the number of images; raises UserError naming the first bad one.
    """
    source = LmdbSource(root)
    for key in source.names():
        data = source.read_bytes(key)
        actual = parse_header(data, root / key)
        stated = source.header(key)
        if (actual.height, actual.width, actual.channels) != (stated.height, stated.width, stated.channels):
            raise UserError(
                f"{printable(root / key)}: is {actual.height}x{actual.width}x{actual.channels} but {META_FILE} says "
                f"{stated.height}x{stated.width}x{stated.channels}; rebuild the database with `mambair data lmdb`"
            )
        if decode:
            decode_image(data, "unchanged", name=root / key)
        if on_progress is not None:
            on_progress(1)
    return len(source.names())
