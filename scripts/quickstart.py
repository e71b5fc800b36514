"""The two steps of the quickstart that are not commands of mambair: the photos before, the picture after.

python scripts/quickstart.py photos    write scikit-image's own photos to datasets/quickstart
python scripts/quickstart.py picture   put input, bicubic, the results of both networks and ground truth side by side
"""

import argparse
import json
from pathlib import Path

from PIL import Image
from skimage import data
from skimage.color import gray2rgb

from mambair.imaging.files import read_image, write_image
from mambair.imaging.panels import busiest_crop, panel_row, stack_rows
from mambair.imaging.resize import imresize
from mambair.metrics import calculate_psnr

PHOTOS = Path("datasets/quickstart")
RESULTS = Path("results")
SCALE = 2

# Captions of the networks, by the name that their option file in options/test has.
NETWORKS = {"quickstart": "trained here", "quickstart_shipped": "in the package"}

# All of these come inside scikit-image's wheel; nothing is downloaded.
TRAIN = ("astronaut", "camera", "coins", "brick", "grass", "gravel", "hubble_deep_field", "page", "retina", "rocket")
VALIDATION = ("chelsea", "coffee")

CROP = 96
ZOOM = 3


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


def comparison_row(name: str) -> Image.Image:
    """Input | bicubic | networks | ground truth of one photo's busiest crop, captioned with PSNR (Y, whole photo)."""
    truth = read_image(PHOTOS / "val" / f"{name}.png")
    small = imresize(truth, 1 / SCALE)
    results = {"bicubic": imresize(small, SCALE)}
    for network, caption in NETWORKS.items():
        results[caption] = read_image(next((RESULTS / network / "visualization").rglob(f"{name}*.png")))
    panels = {f"{name}: input": small.repeat(SCALE, axis=0).repeat(SCALE, axis=1)}
    for caption, image in results.items():
        panels[f"{caption} {calculate_psnr(image, truth, SCALE, test_y_channel=True):.2f} dB"] = image
    panels["ground truth"] = truth
    return panel_row(panels, busiest_crop(truth, CROP, SCALE), CROP, ZOOM)


def write_picture() -> None:
    """Write results/quickstart/comparison.png and say how far the networks are from bicubic."""
    rows = [comparison_row(name) for name in VALIDATION]
    path = RESULTS / "quickstart" / "comparison.png"
    write_image(path, stack_rows(rows))
    for network, caption in NETWORKS.items():
        metrics = json.loads((RESULTS / network / "metrics.json").read_text(encoding="utf-8"))
        for dataset, scores in metrics["datasets"].items():
            bicubic = metrics["baseline"]["datasets"][dataset]
            gains = f"{scores['psnr'] - bicubic['psnr']:+.2f} dB PSNR, {scores['ssim'] - bicubic['ssim']:+.4f} SSIM"
            print(f"The network {caption} against bicubic on {dataset}: {gains}")
    print(f"Comparison picture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("photos", "picture"))
    {"photos": write_photos, "picture": write_picture}[parser.parse_args().step]()


if __name__ == "__main__":
    main()
