"""Which images belong together, and the one error that lists all that is wrong."""

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageCms

from mambair.data.image_sources import check_inside, format_template, read_meta_info, stem_of
from mambair.data.lmdb_store import build_lmdb
from mambair.data.pairing import Pair, Requirements, check_pairs, inspect_pairs, list_entries, pair_images
from mambair.errors import UserError
from mambair.imaging.files import write_image
from mambair.imaging.metadata import Metadata
from mambair.imaging.profiles import make_profile


def save(folder: Path, name: str, height: int = 8, width: int = 8, channels: int = 3) -> Path:
    seed = sum(map(ord, name))
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    write_image(folder / name, image)
    return folder / name


def keys(pairs) -> list[tuple[str, str]]:
    return [(pair.gt.key, pair.lq.key) for pair in pairs]


def test_templates_pair_names_whatever_the_extension(tmp_path: Path) -> None:
    for stem in ("baby", "two words", "v1.2 Größe"):
        save(tmp_path / "gt", f"{stem}.png")
        save(tmp_path / "lq", f"{stem}x2.bmp", 4, 4)
        save(tmp_path / "lq", f"{stem}x3.png", 2, 2)
    pairs, problems = pair_images([tmp_path / "gt"], [tmp_path / "lq"], filename_template="{}x2")
    assert not problems
    assert keys(pairs) == [(f"{stem}.png", f"{stem}x2.bmp") for stem in sorted(("baby", "two words", "v1.2 Größe"))]
    assert inspect_pairs(pairs, Requirements(scale=2, decode=True)) == []


def test_several_roots_are_paired_in_order(tmp_path: Path) -> None:
    for root in ("b", "a"):
        save(tmp_path / root / "gt", "1.png")
        save(tmp_path / root / "lq", "1.png")
    gt_roots, lq_roots = ([tmp_path / root / kind for root in ("b", "a")] for kind in ("gt", "lq"))
    pairs, _ = pair_images(gt_roots, lq_roots)
    assert [pair.lq.path for pair in pairs] == [str(root / "1.png") for root in lq_roots]
    with pytest.raises(UserError, match="dataroot_lq: 1 roots but 2"):
        pair_images(gt_roots, lq_roots[:1])


def test_everything_wrong_is_listed_at_once(tmp_path: Path) -> None:
    gt, lq = tmp_path / "gt", tmp_path / "lq"
    for name in ("fine", "alone", "wrong_size", "gray", "small", "cut", "not_an_image"):
        save(gt, f"{name}.png", 16, 16)
        if name != "alone":
            save(lq, f"{name}.png")
    save(lq, "wrong_size.png", 8, 7)
    save(lq, "gray.png", channels=1)
    save(gt, "small.png", 11, 16)
    save(lq, "small.png", 5, 8)
    (gt / "cut.png").write_bytes((gt / "cut.png").read_bytes()[:20])
    (lq / "not_an_image.png").write_text("hello")
    pairs, problems = pair_images([gt], [lq])
    with pytest.raises(UserError) as raised:
        check_pairs(pairs, Requirements(scale=2, gt_size=12), "train.yml:3: datasets.train", problems)
    head, *lines = str(raised.value).split("\n")
    assert head == "train.yml:3: datasets.train: 5 problems with its images:"
    assert len(lines) == 5
    for path, reason in (
        (gt / "alone.png", f"no partner 'alone' (any image type) in {lq}"),
        (lq / "wrong_size.png", "8x7 pixels do not fit its ground truth of 16x16 at scale 2; expected 8x8"),
        (gt / "small.png", "11x16 pixels are too few for gt_size 12"),
        (gt / "cut.png", "damaged"),
        (lq / "not_an_image.png", "not an image"),
    ):
        assert any(line.startswith(f"  {path}: {reason}") for line in lines), (path, reason)


def test_long_lists_are_cut_and_counted(tmp_path: Path) -> None:
    for index in range(25):
        save(tmp_path / "gt", f"{index:02}.png", 4, 4)
    (tmp_path / "lq").mkdir()
    save(tmp_path / "lq", "other.png", 4, 4)
    _, problems = pair_images([tmp_path / "gt"], [tmp_path / "lq"])
    with pytest.raises(UserError) as raised:
        check_pairs([], Requirements(), "datasets.val", problems)
    lines = str(raised.value).split("\n")
    assert len(lines) == 22
    assert lines[-1] == "  ... and 5 more"


def test_decoding_finds_damage_that_headers_do_not_show(tmp_path: Path) -> None:
    path = save(tmp_path, "a.png", 32, 32)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    pairs, _ = pair_images([tmp_path], [tmp_path])
    assert inspect_pairs(pairs, Requirements()) == []
    seen = []
    problems = inspect_pairs(pairs, Requirements(decode=True), on_progress=seen.append)
    assert [problem.path for problem in problems] == [str(path), str(path)]
    assert seen == [1]


def test_ground_truth_may_have_rows_that_its_partner_does_not_cover(tmp_path: Path) -> None:
    save(tmp_path / "gt", "a.png", 11, 10)
    save(tmp_path / "lq", "a.png", 3, 3)
    pairs, _ = pair_images([tmp_path / "gt"], [tmp_path / "lq"])
    assert inspect_pairs(pairs, Requirements(scale=3)) == []
    assert len(inspect_pairs(pairs, Requirements(scale=4))) == 1


def test_missing_and_empty_roots_name_their_key(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save(tmp_path, "file.png")
    with pytest.raises(UserError, match=r"x\.yml:4: datasets\.train\.dataroot_gt: .*nowhere: no such folder"):
        list_entries([tmp_path / "nowhere"], "x.yml:4: datasets.train.dataroot_gt")
    with pytest.raises(UserError, match=r"dataroot_gt: .*empty holds no images"):
        list_entries([tmp_path / "empty"], "dataroot_gt")
    with pytest.raises(UserError, match="is a file"):
        list_entries([tmp_path / "file.png"], "dataroot_gt")
    with pytest.raises(UserError, match="not an image LMDB"):
        list_entries([tmp_path], "dataroot_gt", backend="lmdb")


def test_meta_info_chooses_images_also_in_subfolders(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b c.png", "left out.png"):
        save(tmp_path / "gt", name)
        save(tmp_path / "lq", name)
    meta = tmp_path / "meta.txt"
    meta.write_text("sub/b c.png (8,8,3)\n\na.png\n")
    pairs, problems = pair_images([tmp_path / "gt"], [tmp_path / "lq"], meta_info_files=[meta])
    assert keys(pairs) == [("sub/b c.png", "sub/b c.png"), ("a.png", "a.png")]
    assert not problems
    with pytest.raises(UserError, match="1 roots but 2 files in meta_info_file"):
        list_entries([tmp_path], "dataroot_gt", meta_info_files=[meta, meta])


def test_meta_info_entry_without_file_is_a_problem(tmp_path: Path) -> None:
    save(tmp_path / "gt", "a.png")
    save(tmp_path / "lq", "b.png")
    (tmp_path / "meta.txt").write_text("b.png\n")
    pairs, problems = pair_images([tmp_path / "gt"], [tmp_path / "lq"], meta_info_files=[tmp_path / "meta.txt"])
    assert not problems
    assert [problem.reason for problem in inspect_pairs(pairs, Requirements())] == ["no such file"]


def test_lines_of_meta_info(tmp_path: Path) -> None:
    path = tmp_path / "meta.txt"
    path.write_text("a.png (480,470,3) 1\nb (2).png (8,9)\nc d.png\nsub/e (1,2,3).png\nscan 12\nf.PNG 3\ng 7 (1,2,3)")
    assert [(line.name, line.size) for line in read_meta_info(path)] == [
        ("a.png", (480, 470, 3)),
        ("b (2).png", (8, 9)),
        ("c d.png", None),
        ("sub/e (1,2,3).png", None),
        ("scan 12", None),
        ("f.PNG", None),
        ("g 7", (1, 2, 3)),
    ]
    path.write_bytes(b"\xef\xbb\xbf0.png\r\n1.png\r\n")  # as Windows saves it
    assert [line.name for line in read_meta_info(path)] == ["0.png", "1.png"]
    path.write_text("\n")
    with pytest.raises(UserError, match="lists no images"):
        read_meta_info(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a meta-info file"):
        read_meta_info(path)
    with pytest.raises(UserError, match="no such meta-info file"):
        read_meta_info(tmp_path / "missing.txt")


@pytest.mark.parametrize(
    "name", ["../a.png", "sub/../../a.png", "/etc/a.png", "..\\a.png", "C:\\a.png", "\\\\host\\a", ""]
)
def test_names_that_leave_their_root_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="leaves its root folder"):
        check_inside(name, "meta.txt:1")
    if name:
        (tmp_path / "meta.txt").write_text(f"ok.png\n{name} (1,1,3)\n")
        with pytest.raises(UserError, match=r"meta\.txt:2: .*leaves its root folder"):
            read_meta_info(tmp_path / "meta.txt")


@given(st.text(max_size=30))
def test_a_checked_name_stays_below_its_root(name: str) -> None:
    root = Path("/data/root")
    try:
        check_inside(name, "here")
    except UserError:
        return
    assert (root / name).resolve().is_relative_to(root)


def test_templates() -> None:
    assert format_template("{}_LRBI_x2", "A {0}") == "A {0}_LRBI_x2"
    for template in ("x2", "{}{}", "../{}", "{0}"):
        with pytest.raises(UserError, match="filename_tmpl"):
            format_template(template, "a")


def test_only_image_extensions_are_taken_off() -> None:
    assert [stem_of(name) for name in ("a.png", "sub/v1.2", "v1.2.JPG", "a")] == ["a", "sub/v1.2", "v1.2", "a"]


def test_of_several_images_of_a_name_each_gets_the_partner_of_its_type(tmp_path: Path) -> None:
    gt, lq = tmp_path / "gt", tmp_path / "lq"
    for name in ("2.bmp", "2.png", "3.bmp", "3.png", "4.bmp", "4.tif", "5.jpg", "6.tif", "7.bmp", "7.tif"):
        save(gt, name)
    for name in ("2x2.bmp", "2x2.png", "3x2.png", "4x2.png", "5x2.png", "6x2.bmp", "6x2.png", "7x2.png", "7x2.tif"):
        save(lq, name)
    pairs, problems = pair_images([gt], [lq], filename_template="{}x2")
    assert keys(pairs) == [
        ("2.bmp", "2x2.bmp"), ("2.png", "2x2.png"), ("3.png", "3x2.png"), ("5.jpg", "5x2.png"), ("7.bmp", "7x2.png"),
        ("7.tif", "7x2.tif"),
    ]  # fmt: skip
    assert {Path(problem.path).name for problem in problems} == {"3.bmp", "4.bmp", "4.tif", "6.tif"}
    told = {Path(problem.path).name: problem.reason for problem in problems}
    assert told["3.bmp"].startswith(
        "is one of 2 images of this name, and it cannot be told which of 3x2.png is its own"
    )
    assert told["6.tif"].startswith("has several partners, and it cannot be told which of 6x2.bmp, 6x2.png")


@pytest.mark.parametrize("listed", ["scan 12", "scan 12.png", "scan 12.png (8,8,3) 1", "scan 12 (8,8,3)"])
@pytest.mark.parametrize("backend", ["disk", "lmdb"])
def test_a_number_behind_a_name_is_part_of_it(tmp_path: Path, listed: str, backend: str) -> None:
    for folder in ("gt", "lq"):
        for name in ("scan.png", "scan 12.png"):
            save(tmp_path / folder, name)
    (tmp_path / "meta.txt").write_text(f"{listed}\n")
    roots = [tmp_path / "gt", tmp_path / "lq"]
    if backend == "lmdb":
        for root in roots:
            build_lmdb(root, root.with_suffix(".lmdb"))
        roots = [root.with_suffix(".lmdb") for root in roots]
    pairs, problems = pair_images([roots[0]], [roots[1]], backend=backend, meta_info_files=[tmp_path / "meta.txt"])
    assert not problems
    assert [(stem_of(gt), stem_of(lq)) for gt, lq in keys(pairs)] == [("scan 12", "scan 12")]
    assert inspect_pairs(pairs, Requirements(decode=True)) == []


def test_a_listed_name_without_image_is_missed(tmp_path: Path) -> None:
    save(tmp_path, "scan.png")
    (tmp_path / "meta.txt").write_text("scan 12\nscan.bmp\n")
    entries = list_entries([tmp_path], "dataroot_gt", meta_info_files=[tmp_path / "meta.txt"])
    assert [entry.key for entry in entries] == ["scan 12", "scan.bmp"]
    problems = inspect_pairs([Pair(entry) for entry in entries], Requirements())
    assert [problem.reason for problem in problems] == ["no such file", "no such file"]


def test_both_names_may_have_a_form(tmp_path: Path) -> None:
    """SelfExSR's copies of the benchmarks have both images, and other methods' results, in one folder."""
    for kind, side in (("HR", 8), ("LR", 4), ("bicubic", 8), ("SRCNN", 8)):
        for number in (1, 2):
            save(tmp_path, f"img_00{number}_SRF_2_{kind}.png", side, side)
    pairs, problems = pair_images([tmp_path], [tmp_path], filename_template="{}_SRF_2_LR", gt_template="{}_SRF_2_HR")
    assert not problems
    assert keys(pairs) == [(f"img_00{n}_SRF_2_HR.png", f"img_00{n}_SRF_2_LR.png") for n in (1, 2)]
    assert inspect_pairs(pairs, Requirements(scale=2)) == []
    with pytest.raises(UserError, match=r"holds no images called '\{\}_SRF_4_HR', as filename_tmpl_gt says"):
        list_entries([tmp_path], "dataroot_gt", filename_template="{}_SRF_4_HR")


def test_gray_images_are_read_as_colour_and_counted_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, channels in {"a": 3, "b": 1, "c": 1}.items():
        save(tmp_path / "gt", f"{name}.png", 16, 16, channels=channels)
        save(tmp_path / "lq", f"{name}.png", channels=channels)
    pairs, _ = pair_images([tmp_path / "gt"], [tmp_path / "lq"])
    with caplog.at_level(logging.INFO, "mambair"):
        assert inspect_pairs(pairs, Requirements(scale=2, decode=True)) == []
    gray = tmp_path / "gt" / "b.png"
    assert caplog.messages == [f"{gray}: is gray and read as three equal channels; so are 2 of 3 images here in all"]
    for image in (pairs[1].gt.read("color"), pairs[1].lq.read("color")):
        assert image.shape[2] == 3 and (image == image[:, :, :1]).all()
    caplog.clear()
    with caplog.at_level(logging.INFO, "mambair"):
        inspect_pairs(pairs, Requirements(scale=2, color=False))
    assert caplog.messages == []


def test_pairs_whose_profiles_differ(tmp_path: Path) -> None:
    adobe = make_profile("wide", (2.2,), ((0.3127, 0.329), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, (first, second) in {
        "a": (adobe, adobe),
        "b": (srgb, None),
        "c": (adobe, None),
        "d": (None, adobe),
    }.items():
        for folder, profile, side in (("gt", first, 16), ("lq", second, 8)):
            write_image(
                tmp_path / folder / f"{name}.png", np.zeros((side, side, 3), np.uint8), colors=Metadata(profile)
            )
    pairs, _ = pair_images([tmp_path / "gt"], [tmp_path / "lq"])
    assert inspect_pairs(pairs, Requirements(scale=2)) == []
    found = [str(problem) for problem in inspect_pairs(pairs, Requirements(scale=2, profiles=True))]
    assert len(found) == 2
    assert found[0].startswith(f"{tmp_path / 'lq' / 'c.png'}: its colour profile (none, which means sRGB) is not its")
    assert "ground truth's (wide): equal pixels differ by up to" in found[0]
    assert found[1].startswith(
        f"{tmp_path / 'lq' / 'd.png'}: its colour profile (wide) is not its ground truth's (none"
    )
