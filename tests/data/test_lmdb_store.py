"""Image LMDBs: BasicSR's layout, forks, damage."""

import multiprocessing
import pickle
from pathlib import Path

import lmdb
import numpy as np
import pytest

from mambair.data.lmdb_store import LmdbSource, build_lmdb, verify_lmdb
from mambair.data.pairing import Requirements, inspect_pairs, list_entries, pair_images
from mambair.errors import UserError
from mambair.imaging.files import decode_image, write_image


@pytest.fixture
def images(tmp_path: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    content = {
        "b.png": rng.integers(0, 256, (9, 7, 3), dtype=np.uint8),
        "a b.bmp": rng.integers(0, 256, (5, 6, 3), dtype=np.uint8),
        "v1.2.png": rng.integers(0, 65536, (4, 4, 1), dtype=np.uint16),
    }
    for name, image in content.items():
        write_image(tmp_path / "images" / name, image)
    return content


@pytest.fixture
def database(tmp_path: Path, images) -> Path:
    assert build_lmdb(tmp_path / "images", tmp_path / "images.lmdb") == 3
    return tmp_path / "images.lmdb"


def test_layout_is_basicsr_s(database: Path, images) -> None:
    assert (database / "meta_info.txt").read_text() == "a b.bmp (5,6,3)\nb.png (9,7,3)\nv1.2.png (4,4,1)\n"
    source = LmdbSource(database)
    assert source.names() == ["a b", "b", "v1.2"]
    for name, image in images.items():
        data = source.read_bytes(name.rpartition(".")[0])
        assert data == (database.parent / "images" / name).read_bytes()
        np.testing.assert_array_equal(decode_image(data, "unchanged"), image)


def test_re_encoding_as_png_keeps_the_pixels(tmp_path: Path, images) -> None:
    build_lmdb(tmp_path / "images", tmp_path / "png.lmdb", png_level=1)
    lines = (tmp_path / "png.lmdb" / "meta_info.txt").read_text().splitlines()
    assert lines == ["a b.png (5,6,3) 1", "b.png (9,7,3) 1", "v1.2.png (4,4,1) 1"]
    for name, image in images.items():
        data = LmdbSource(tmp_path / "png.lmdb").read_bytes(name.rpartition(".")[0])
        assert data.startswith(b"\x89PNG")
        np.testing.assert_array_equal(decode_image(data, "unchanged"), image)


def test_entries_pairs_and_headers(database: Path, images) -> None:
    pairs, problems = pair_images([database], [database], backend="lmdb")
    assert not problems
    assert inspect_pairs(pairs, Requirements()) == []
    (entry,) = [pair.gt for pair in pairs if pair.gt.key == "a b"]
    np.testing.assert_array_equal(entry.read("color"), images["a b.bmp"])
    meta = database.parent / "list.txt"
    meta.write_text("b.png\nmissing.png\n")
    listed = list_entries([database], "dataroot_gt", backend="lmdb", meta_info_files=[meta])
    assert [entry.key for entry in listed] == ["b", "missing"]
    with pytest.raises(UserError, match="'missing' is not in its"):
        listed[1].header()
    with pytest.raises(UserError, match="is an LMDB; add io_backend"):
        list_entries([database], "dataroot_gt")


def _read_in_child(source: LmdbSource, queue) -> None:
    queue.put([len(source.read_bytes(name)) for name in source.names() for _ in range(20)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_at_the_same_time_after_the_parent_did(database: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    source = LmdbSource(database)
    expected = [len(source.read_bytes(name)) for name in source.names() for _ in range(20)]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=_read_in_child, args=(source, queue)) for _ in range(3)]
    for child in children:
        child.start()
    results = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert results == [expected] * 3
    assert [len(source.read_bytes(name)) for name in source.names() for _ in range(20)] == expected


def test_reading_writes_nothing(database: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in database.iterdir()}
    source = pickle.loads(pickle.dumps(LmdbSource(database)))
    source.read_bytes("b")
    assert {path.name: path.stat().st_mtime_ns for path in database.iterdir()} == before


def test_an_existing_database_is_never_replaced(database: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        build_lmdb(database.parent / "images", database)


def test_nothing_is_left_where_an_image_is_damaged(tmp_path: Path, images) -> None:
    path = tmp_path / "images" / "b.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"b\.png: truncated PNG"):
        build_lmdb(tmp_path / "images", tmp_path / "new.lmdb")
    assert [entry.name for entry in tmp_path.iterdir()] == ["images"]


def test_names_that_cannot_be_keys(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    write_image(tmp_path / "twice" / "a.png", image)
    write_image(tmp_path / "twice" / "a.bmp", image)
    with pytest.raises(UserError, match=r"'a\.bmp' and 'a\.png' would have the same LMDB key"):
        build_lmdb(tmp_path / "twice", tmp_path / "x.lmdb")
    write_image(tmp_path / "lines" / "new\nline.png", image)
    with pytest.raises(UserError, match="no line breaks"):
        build_lmdb(tmp_path / "lines", tmp_path / "x.lmdb")
    with pytest.raises(UserError, match="leaves its root"):
        build_lmdb(tmp_path / "twice", tmp_path / "x.lmdb", names=["../a.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        build_lmdb(tmp_path / "empty", tmp_path / "x.lmdb")


def test_a_database_that_outgrows_its_first_size(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("mambair.data.lmdb_store._INITIAL_MAP_BYTES", 2**16)
    rng = np.random.default_rng(0)
    for index in range(40):
        write_image(tmp_path / "images" / f"{index:02}.bmp", rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    counted = []
    assert build_lmdb(tmp_path / "images", tmp_path / "x.lmdb", on_progress=counted.append) == 40
    assert counted == [32, 8]
    assert verify_lmdb(tmp_path / "x.lmdb", decode=True) == 40


def test_verification_notices_what_does_not_fit(database: Path) -> None:
    assert verify_lmdb(database, decode=True) == 3
    meta = database / "meta_info.txt"
    meta.write_text(meta.read_text().replace("(9,7,3)", "(9,8,3)"))
    with pytest.raises(UserError, match=r"b: is 9x7x3 but meta_info\.txt says 9x8x3"):
        verify_lmdb(database)
    meta.write_text("c.png (9,7,3)\n")
    with pytest.raises(UserError, match=r"key 'c' of meta_info\.txt is not in the database"):
        verify_lmdb(database)
    meta.write_text("../c.png (9,7,3)\n")
    with pytest.raises(UserError, match="leaves its root"):
        verify_lmdb(database)


def test_a_folder_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"\0" * 5000)
    (tmp_path / "meta_info.txt").write_text("a.png (4,4,3)\n")
    with pytest.raises(UserError, match="not an LMDB"):
        LmdbSource(tmp_path).read_bytes("a")


def test_keys_are_utf8(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "Größe 大.png", np.zeros((4, 4, 3), np.uint8))
    build_lmdb(tmp_path / "images", tmp_path / "x.lmdb")
    assert LmdbSource(tmp_path / "x.lmdb").names() == ["Größe 大"]
    environment = lmdb.open(str(tmp_path / "x.lmdb"), readonly=True, lock=False)
    with environment, environment.begin() as transaction:
        assert transaction.get("Größe 大".encode()) is not None


def test_what_a_killed_build_left_is_removed(tmp_path: Path, images) -> None:
    leftover = tmp_path / ".tmp-images.lmdb"
    leftover.mkdir()
    (leftover / "data.mdb").write_bytes(b"half of a database")
    assert build_lmdb(tmp_path / "images", tmp_path / "images.lmdb") == 3
    assert not leftover.exists()
