"""The report page: what it holds, and that a real browser shows it and moves its sliders."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from mambair.engine.evaluate.html_report import (
    CROP_SIDE,
    CROP_ZOOM,
    SHOWN_IMAGES,
    ReportImages,
    make_entry,
    most_changed,
    write_html_report,
)
from mambair.engine.evaluate.scoring import Scores
from mambair.engine.evaluate.tables import Row, make_table
from mambair.engine.evaluate.validator import Judged
from mambair.imaging.files import read_image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture
def photo() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[:300, :400])


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


def write_page(path: Path, judged: list[Judged]) -> str:
    images = ReportImages()
    for item in judged:
        images.keep("Set <2>", item)
    scores = Scores({item.name: {"psnr": 30.0 + item.index, "ssim": 0.9} for item in judged})
    rows = [Row("Input", {"Set <2>": scores}, is_network=False), Row("our & net", {"Set <2>": scores})]
    table = make_table(rows, {"psnr": True, "ssim": True})
    write_html_report(path, "A <title>", table, images.datasets, ["Images are rounded to uint8."])
    return path.read_text(encoding="utf-8")


def test_most_changed_crop_is_found_and_comes_first(photo):
    after = photo.copy()
    after[160:260, 250:350] = 255 - after[160:260, 250:350]
    after[10:40, 10:40] //= 2
    boxes = most_changed(photo, after)
    top, left, side, change = boxes[0]
    assert side == CROP_SIDE and top <= 160 and left <= 250 and top + side >= 260 and left + side >= 350
    assert change == pytest.approx(
        np.abs(after.astype(float) - photo)[top : top + side, left : left + side].mean(), rel=1e-4
    )
    assert [box[3] for box in boxes] == sorted((box[3] for box in boxes), reverse=True)


def test_small_super_resolution_and_gray_images_have_entries(photo):
    entry = make_entry(Judged("a", 0, photo[:20, :24], photo[:80, :96], None))
    assert entry.views[1].sources[0].startswith("data:image/webp;base64,") and len(entry.views[1].sources) == 2
    entry = make_entry(Judged("b", 0, photo[:5, :3, :1], photo[:5, :3, :1], photo[:5, :3, :1]))
    assert entry.change == 0 and len(entry.views[0].sources) == 3


def test_page_is_one_file_with_everything_in_it(tmp_path, photo):
    judged = [
        Judged("weak", 0, noisy(photo, 5), photo, photo),
        Judged("<strong>", 1, noisy(photo, 40), photo, photo),
    ]
    page = write_page(tmp_path / "report.html", judged)
    assert not re.search(r"""(src|href)=["']?(?!data:)\w""", page)
    assert "https://" not in page and "http://" not in page
    assert "A &lt;title&gt;" in page and "Set &lt;2&gt;" in page and "our &amp; net" in page
    assert page.index("<h3>&lt;strong&gt;</h3>") < page.index("<h3>weak</h3>")  # the most changed first
    assert "PSNR 31.00, SSIM 0.9000" in page


def test_only_the_most_changed_images_of_a_large_data_set_are_kept(tmp_path, photo):
    small = photo[:16, :16]
    judged = [Judged(f"{number:03d}", number, noisy(small, number), small, None) for number in range(SHOWN_IMAGES + 7)]
    page = write_page(tmp_path / "report.html", judged)
    assert page.count("<article>") == SHOWN_IMAGES and "<h3>000</h3>" not in page
    assert "7 images that changed less are left out" in page


def browse(page: Path, *options: str) -> str:
    """What headless Chromium prints after opening a page."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    command += ["--virtual-time-budget=4000", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_browser
@pytest.mark.parametrize(
    ("choice", "colors"), [("", "rb"), ("left.value = 2; right.value = 0;", "gr"), ("right.value = 2;", "rg")]
)
def test_a_browser_paints_one_image_on_each_side_of_the_handle(tmp_path, choice, colors):
    plain = {name: np.full((60, 80, 3), 0, np.uint8) for name in "rgb"}
    for channel, image in enumerate(plain.values()):
        image[..., channel] = 255
    page = write_page(tmp_path / "report.html", [Judged("plain", 0, plain["r"], plain["b"], plain["g"])])
    # Only the crop, at the window's corner.
    script = f"""<script>{choice} show(); const crop = document.querySelectorAll(".slider")[1];
      document.body.replaceChildren(crop); document.body.style.margin = 0; </script></body>"""
    (tmp_path / "crop.html").write_text(page.replace("</body>", script), encoding="utf-8")
    browse(tmp_path / "crop.html", "--window-size=400,300", f"--screenshot={tmp_path / 'shot.png'}")
    shot = read_image(tmp_path / "shot.png", mode="color")
    width = 60 * CROP_ZOOM
    for place, color in ((width // 4, colors[0]), (3 * width // 4, colors[1])):
        np.testing.assert_allclose(shot[width // 2, place].astype(int), plain[color][0, 0], atol=2)


@needs_browser
def test_a_browser_shows_the_page_and_moves_the_sliders(tmp_path, photo):
    judged = [
        Judged("gt", 0, noisy(photo, 40), 255 - photo, photo),
        Judged("none", 1, noisy(photo, 20), photo, None),
    ]
    page = write_page(tmp_path / "report.html", judged)
    probe = """
      <script>addEventListener("load", () => {
        const sliders = [...document.querySelectorAll(".slider")], first = sliders[0];
        const handle = first.querySelector("input");
        handle.value = 25; handle.dispatchEvent(new Event("input"));
        right.value = 2; right.dispatchEvent(new Event("change"));
        const shown = slider => [...slider.querySelectorAll("img:not(.hidden)")].map(i => i.dataset.view).join("");
        const broken = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;
        document.body.dataset.result = [sliders.length, broken, first.style.getPropertyValue("--cut"),
          shown(first), shown(sliders.at(-1)), getComputedStyle(first.querySelector(".before")).clipPath].join("|");
      });</script></body>"""
    # Lazy images far down the page would not be loaded without a window to scroll.
    (tmp_path / "probe.html").write_text(page.replace('loading="lazy"', "").replace("</body>", probe), encoding="utf-8")
    dom = browse(tmp_path / "probe.html", "--dump-dom")
    count, broken, cut, with_truth, without, clip = re.search(r'data-result="([^"]*)"', dom)[1].split("|")
    assert (int(count), int(broken)) == (8, 0)
    assert cut == "25%" and "75%" in clip
    assert with_truth == "02" and without == "01"  # an image without ground truth goes on showing the restored one
