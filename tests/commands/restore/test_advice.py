"""What is said of photos that another task would suit better, and that it changes nothing."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from mambair.commands.restore.advice import Advice, advise, jpeg_quality, nearest_published
from mambair.commands.restore.command import main
from mambair.imaging.files import read_image
from mambair.weights.published import PUBLISHED

PHOTO = np.ascontiguousarray(skimage.data.astronaut()[:200, 130:330])
NOISY = np.clip(PHOTO + np.random.default_rng(0).normal(0, 22, PHOTO.shape), 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def advice(path: Path) -> Advice | None:
    return advise(path, read_image(path, mode="unchanged"))


def test_clean_photos_need_no_advice(tmp_path: Path) -> None:
    assert advice(save(tmp_path / "a.png", PHOTO)) is None
    assert advice(save(tmp_path / "a.jpg", PHOTO, quality=90)) is None
    assert advice(save(tmp_path / "a.webp", PHOTO, quality=40)) is None


def test_compressed_noisy_and_both(tmp_path: Path, nothing_shipped: Path) -> None:
    jpeg = advice(save(tmp_path / "a.jpg", PHOTO, quality=35))
    assert jpeg is not None and jpeg.seen == "JPEG of quality 35"
    assert jpeg.text.startswith("--task jpeg would suit it better") and "weights get CAR_q30`" in jpeg.text
    noise = advice(save(tmp_path / "a.png", NOISY))
    assert noise is not None and noise.seen.startswith("noise of about sigma 2")
    assert noise.text.startswith("--task denoise") and "weights get ColorDN_25`" in noise.text
    both = advice(save(tmp_path / "b.jpg", NOISY, quality=70))
    assert both is not None and both.seen.startswith("JPEG of quality 70, noise of about sigma ")
    assert both.text.startswith("--task photo_x4") and "weights get RealSR_x4`" in both.text


def test_what_is_here_comes_before_what_can_be_fetched(tmp_path: Path, own_cache: Path, nothing_shipped: Path) -> None:
    jpeg, noise = save(tmp_path / "a.jpg", PHOTO, quality=35), save(tmp_path / "a.png", NOISY)
    (own_cache / PUBLISHED["RealSR_x4"].file_name).touch()
    for path in (jpeg, noise):
        found = advice(path)
        assert found is not None and found.text.startswith("--task photo_x4") and "weights get" not in found.text
    (own_cache / PUBLISHED["CAR_q10"].file_name).touch()
    found = advice(jpeg)
    assert found is not None and found.text.startswith("--task jpeg") and "weights get" not in found.text


def test_the_nearest_published_strength_is_named() -> None:
    assert [nearest_published("denoise", sigma) for sigma in (8, 19, 21, 80)] == [
        "ColorDN_15", "ColorDN_15", "ColorDN_25", "ColorDN_50",
    ]  # fmt: skip
    assert [nearest_published("jpeg", quality) for quality in (5, 25, 75)] == ["CAR_q10", "CAR_q30", "CAR_q40"]
    assert nearest_published("photo_x4", None) == "RealSR_x4" and nearest_published("photo_x1", None) is None


def test_transparent_deep_and_tiny_images(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", PHOTO)
    alpha = np.dstack([PHOTO, np.random.default_rng(0).integers(0, 256, PHOTO.shape[:2], dtype=np.uint8)])
    assert advise(path, alpha) is None, "noise of the transparency does not count"
    assert advise(path, NOISY.astype(np.uint16) * 257) is not None
    assert advise(path, PHOTO[:1, :1]) is None


def test_files_that_are_no_jpeg_or_damaged(tmp_path: Path) -> None:
    assert jpeg_quality(save(tmp_path / "a.png", PHOTO)) is None
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff")
    assert jpeg_quality(tmp_path / "b.jpg") is None
    assert jpeg_quality(save(tmp_path / "c.png", PHOTO, format="JPEG", quality=60)) == 60, "whatever its name"


def test_restore_says_it_once_and_does_what_it_always_does(
    tmp_path: Path, x2_weights: Path, nothing_shipped: Path, own_cache: Path, capsys: pytest.CaptureFixture
) -> None:
    (own_cache / PUBLISHED["lightSR_x2"].file_name).write_bytes(x2_weights.read_bytes())
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        save(folder / name, PHOTO[:48, :48], quality=20)
    save(folder / "c.png", PHOTO[:48, :48])
    base = [str(folder), "--device", "cpu", "--format", "png"]
    assert main([*base, "-o", str(tmp_path / "plain")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("JPEG of quality 20; --task jpeg would suit it better") == 1
    assert "2 files: --task jpeg would suit it better" in printed
    for more in (["--task", "x2"], ["--weights", str(x2_weights)]):
        output = tmp_path / more[0].strip("-")
        assert main([*base, "-o", str(output), *more]) == 0
        assert "suit it better" not in capsys.readouterr().out, "who names a task or weights is not advised"
        for name in ("a.png", "b.png", "c.png"):
            assert (output / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
