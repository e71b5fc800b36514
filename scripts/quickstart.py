"""The two steps of the quickstart that are not commands of mambair: the photos before, the picture after.

python scripts/quickstart.py photos    write scikit-image's own photos to datasets/quickstart
python scripts/quickstart.py picture   put input, bicubic, restored and ground truth side by side
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from skimage.color import gray2rgb

from mambair.imaging.files import read_image, write_image
from mambair.imaging.resize import imresize
from mambair.metrics import calculate_psnr

PHOTOS = Path("datasets/quickstart")
RESULTS = Path("results/quickstart")
SCALE = 2

# All of these come inside scikit-image's wheel; nothing is downloaded.
TRAIN = ("astronaut", "camera", "coins", "brick", "grass", "gravel", "hubble_deep_field", "page", "retina", "rocket")
VALIDATION = ("chelsea", "coffee")

CROP = 96
ZOOM = 3
MARGIN = 8
CAPTION = 22


def write_photos() -> None:
    """Write the photos as PNG files, sides cut to a multiple of the scale; existing ones are left alone."""
    for folder, names in (("train", TRAIN), ("val", VALIDATION)):
        for name in names:
            path = PHOTOS / folder / f"{name}.png"
            if path.exists():
                continue
            photo = getattr(data, name)()
            photo = gray2rgb(photo) if photo.ndim == 2 else photo[..., :3]
            height, width = (side - side % SCALE for side in photo.shape[:2])
            write_image(path, photo[:height, :width])
    print(f"{len(TRAIN)} photos to train on and {len(VALIDATION)} to test on are in {PHOTOS}/")


def busiest_crop(image: np.ndarray, size: int) -> tuple[int, int]:
    """(top, left) of the window of `size` pixels with the strongest gradients, on a grid of half its size."""
    detail = np.abs(np.diff(image.astype(np.float32).mean(axis=2), axis=0, append=0)) + np.abs(
        np.diff(image.astype(np.float32).mean(axis=2), axis=1, append=0)
    )
    step = size // 2 - size // 2 % SCALE
    corners = [
        (top, left)
        for top in range(0, image.shape[0] - size, step)
        for left in range(0, image.shape[1] - size, step)
    ]
    return max(corners, key=lambda corner: detail[corner[0] : corner[0] + size, corner[1] : corner[1] + size].mean())


def comparison_row(name: str) -> Image.Image:
    """Input | bicubic | restored | ground truth of one photo's busiest crop, captioned with PSNR (Y, whole photo)."""
    truth = read_image(PHOTOS / "val" / f"{name}.png")
    restored = read_image(next((RESULTS / "visualization").rglob(f"{name}*.png")))
    small = imresize(truth, 1 / SCALE)
    bicubic = imresize(small, SCALE)
    panels = {
        f"{name}: input": small.repeat(SCALE, axis=0).repeat(SCALE, axis=1),
        f"bicubic {calculate_psnr(bicubic, truth, SCALE, test_y_channel=True):.2f} dB": bicubic,
        f"MambaIR, quickstart {calculate_psnr(restored, truth, SCALE, test_y_channel=True):.2f} dB": restored,
        "ground truth": truth,
    }
    top, left = busiest_crop(truth, CROP)
    side = CROP * ZOOM
    row = Image.new("RGB", (len(panels) * (side + MARGIN) + MARGIN, side + CAPTION + MARGIN), "white")
    draw = ImageDraw.Draw(row)
    for column, (caption, image) in enumerate(panels.items()):
        x = MARGIN + column * (side + MARGIN)
        crop = Image.fromarray(image[top : top + CROP, left : left + CROP])
        row.paste(crop.resize((side, side), Image.Resampling.NEAREST), (x, CAPTION))
        draw.text((x, 4), caption, fill="black", font=ImageFont.load_default(size=14))
    return row


def write_picture() -> None:
    """Write results/quickstart/comparison.png and say how far the network is from bicubic."""
    rows = [comparison_row(name) for name in VALIDATION]
    picture = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for index, row in enumerate(rows):
        picture.paste(row, (0, index * row.height))
    path = RESULTS / "comparison.png"
    write_image(path, np.asarray(picture))
    metrics = json.loads((RESULTS / "metrics.json").read_text(encoding="utf-8"))
    for dataset, scores in metrics["datasets"].items():
        bicubic = metrics["baseline"]["datasets"][dataset]
        gains = f"{scores['psnr'] - bicubic['psnr']:+.2f} dB PSNR, {scores['ssim'] - bicubic['ssim']:+.4f} SSIM"
        print(f"The network against bicubic on {dataset}: {gains}")
    print(f"Comparison picture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("photos", "picture"))
    {"photos": write_photos, "picture": write_picture}[parser.parse_args().step]()


if __name__ == "__main__":
    main()
