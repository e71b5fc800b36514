import cv2
import numpy as np
import pytest

from mambair.commands.data import main
from mambair.commands.data.derive import crop_boxes, crop_name, positions, sibling_folder
from mambair.imaging.files import read_colors, read_image, write_image
from mambair.imaging.metadata import Metadata
from mambair.imaging.photo import Photo, write_photo
from mambair.imaging.profiles import SRGB_PRIMARIES, color_difference, make_profile
from mambair.imaging.resize import imresize


def test_lr_has_the_recipes_names_and_matlabs_pixels(image_folder, photo):
    folder = image_folder("Set2/HR")
    assert main(["lr", str(folder), "--scale", "2", "3", "--workers", "1"]) == 0
    lr = folder.parent / "LR_bicubic"
    np.testing.assert_array_equal(read_image(lr / "X2" / "ax2.png"), imresize(photo, 1 / 2))
    # 130 x 118 is no multiple of 3: one row and one column go first.
    np.testing.assert_array_equal(read_image(lr / "X3" / "ax3.png"), imresize(photo[:129, :117], 1 / 3))
    assert (lr / "X3" / "bx3.png").is_file()


def test_lr_writes_cropped_partners_and_other_names(image_folder, photo, tmp_path):
    folder = image_folder("Manga", ("a.png",))
    arguments = ["--scale", "4", "--filename-tmpl", "{}_LRBI_x{scale}", "--cropped-hr", str(tmp_path / "HR4")]
    assert main(["lr", str(folder), *arguments, "--workers", "1"]) == 0
    assert (tmp_path / "Manga_LR_bicubic" / "X4" / "a_LRBI_x4.png").is_file()
    np.testing.assert_array_equal(read_image(tmp_path / "HR4" / "a.png"), photo[:128, :116])


def test_jpeg_is_opencvs_in_colour_gray_and_luma(image_folder, photo, tmp_path):
    folder = image_folder("clean", ("a.png",))
    for channels in ("color", "gray", "y"):
        output = tmp_path / channels
        arguments = ["--quality", "10", "40", "--channels", channels, "--output", str(output), "--workers", "1"]
        assert main(["jpeg", str(folder), *arguments]) == 0
        assert (output / "q40" / "a.jpg").stat().st_size > 1.5 * (output / "q10" / "a.jpg").stat().st_size
    bgr = photo[..., ::-1]
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 10])[1].tobytes()
    assert (tmp_path / "color" / "q10" / "a.jpg").read_bytes() == encoded
    gray = cv2.imread(str(folder / "a.png"), cv2.IMREAD_GRAYSCALE)
    encoded = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, 10])[1].tobytes()
    assert (tmp_path / "gray" / "q10" / "a.jpg").read_bytes() == encoded
    luma = read_image(tmp_path / "y" / "q40" / "a.jpg", mode="unchanged")
    assert luma.shape == (130, 118, 1)
    assert luma.mean() == pytest.approx(16 + gray.mean() * 219 / 255, abs=1)  # MATLAB's luma spans 16 to 235


def test_gray_images_become_gray_jpegs(image_folder, photo, tmp_path):
    folder = image_folder("classic5", ())
    write_image(folder / "a.png", photo[..., :1])
    for channels in ("color", "gray", "y"):
        output = tmp_path / channels
        arguments = ["--quality", "40", "--channels", channels, "--output", str(output), "--workers", "1"]
        assert main(["jpeg", str(folder), *arguments]) == 0
        encoded = cv2.imencode(".jpg", photo[..., :1], [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes()
        assert (output / "q40" / "a.jpg").read_bytes() == encoded


@pytest.mark.parametrize(
    ("length", "threshold", "expected"),
    [(480, 0, [0]), (481, 0, [0, 1]), (481, 1, [0]), (1000, 0, [0, 240, 480, 520]), (300, 0, [0])],
)
def test_positions_of_crops(length, threshold, expected):
    assert positions(length, 480, 240, threshold) == expected


def test_crops_cover_every_pixel():
    covered = np.zeros((131, 97), dtype=int)
    for top, left, bottom, right in crop_boxes(131, 97, 32, 20, 0):
        assert bottom - top == right - left == 32
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1


def test_subimages_pair_with_those_of_the_low_quality_folder(image_folder, tmp_path, photo):
    folder = image_folder("HR", ("a.png",))
    main(["lr", str(folder), "--scale", "2", "--workers", "1"])
    cut = ["--crop-size", "64", "--step", "32", "--workers", "1"]
    assert main(["subimages", str(folder), str(tmp_path / "HR_sub"), *cut]) == 0
    lq = [str(tmp_path / "LR_bicubic" / "X2"), str(tmp_path / "LR_sub"), "--scale", "2"]
    assert main(["subimages", *lq, *cut]) == 0
    truths = sorted(path.stem for path in (tmp_path / "HR_sub").glob("*.png"))
    assert len(truths) == 4 * 3
    assert sorted(path.stem for path in (tmp_path / "LR_sub").glob("*.png")) == [f"{stem}x2" for stem in truths]
    np.testing.assert_array_equal(read_image(tmp_path / "HR_sub" / "a_s002.png"), photo[:64, 32:96])
    whole = read_image(tmp_path / "LR_bicubic" / "X2" / "ax2.png")
    np.testing.assert_array_equal(read_image(tmp_path / "LR_sub" / "a_s002x2.png"), whole[:32, 16:48])


def test_names():
    assert crop_name("0001", 3, 1) == "0001_s003"
    assert crop_name("0001x4", 12, 4) == "0001_s012x4"


def test_sibling_folders_are_those_of_the_data_sets(tmp_path):
    assert sibling_folder(tmp_path / "Set5" / "HR", "LR_bicubic") == tmp_path / "Set5" / "LR_bicubic"
    assert sibling_folder(tmp_path / "DIV2K_train_HR", "LR_bicubic").name == "DIV2K_train_LR_bicubic"
    assert sibling_folder(tmp_path / "BSD400", "JPEG").name == "BSD400_JPEG"
    assert sibling_folder(tmp_path / "Set5" / "HR" / "..", "JPEG") == tmp_path / "Set5_JPEG"
    (tmp_path / "archive").mkdir()
    (tmp_path / "Set14").mkdir()
    (tmp_path / "Set14" / "HR").symlink_to(tmp_path / "archive")
    assert sibling_folder(tmp_path / "Set14" / "HR", "LR_bicubic") == tmp_path / "Set14" / "LR_bicubic"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr", "{folder}", "--filename-tmpl", "x2"], "must hold {}"),
        (["lr", "{folder}", "--filename-tmpl", "{}{factor}"], "use {} for the name"),
        (["subimages", "{folder}", "{out}", "--crop-size", "481", "--scale", "2"], "no multiple of --scale"),
        (["lr", "{out}"], "no such folder"),
    ],
)
def test_mistakes_are_one_line(image_folder, tmp_path, capsys, arguments, message):
    folder = image_folder("HR")
    filled = [a.replace("{folder}", str(folder)).replace("{out}", str(tmp_path / "out")) for a in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("source", ["png", "jpg", "tif", "chunks"])
def test_the_colour_profile_goes_along(tmp_path, photo, source):
    profile = make_profile("wide", (2.2,), ((0.3127, 0.329), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)))
    chunks = ((b"gAMA", (100_000).to_bytes(4, "big")),)
    metadata = Metadata(colors=chunks) if source == "chunks" else Metadata(profile, resolution=(300, 300))
    path = tmp_path / "HR" / f"a.{'png' if source == 'chunks' else source}"
    write_photo(path, Photo(photo, metadata))
    folder = str(path.parent)
    assert main(["lr", folder, "--scale", "2", "--cropped-hr", str(tmp_path / "cropped"), "--workers", "1"]) == 0
    assert main(["jpeg", folder, "--quality", "90", "--output", str(tmp_path / "jpeg"), "--workers", "1"]) == 0
    made = [
        tmp_path / "LR_bicubic" / "X2" / "ax2.png",
        tmp_path / "cropped" / "a.png",
        tmp_path / "jpeg" / "q90" / "a.jpg",
    ]
    for result in made:
        colors = read_colors(result)
        if source != "chunks":
            assert colors == Metadata(profile)
        elif result.suffix == ".png":
            assert colors == metadata
        else:
            assert color_difference(colors.icc_profile, make_profile("linear", (1.0,), SRGB_PRIMARIES)) <= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["subimages", "{folder}", "{link}", "--crop-size", "8"], "name another folder for the crops"),
        (["metainfo", "{folder}", "{folder}/a.png"], "is the name of an image"),
        (["select", "{folder}", "--list", "{folder}/a.png"], "is the name of an image"),
    ],
)
def test_images_are_not_taken_for_results(image_folder, tmp_path, capsys, arguments, message):
    folder = image_folder("HR")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "a.png" in before
    filled = [each.format(folder=folder, link=tmp_path / "link") for each in arguments]
    assert main([*filled, "--overwrite"]) == 2
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
