"""Pictures that compare images: the same enlarged crop of each, side by side under captions."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 8
CAPTION = 22
FONT_SIZE = 15


def busiest_crop(image: np.ndarray, size: int, step: int) -> tuple[int, int]:
    """(top, left) of the window of `size` pixels with the strongest gradients, both multiples of `step`.

    The image, (H, W, C), must not be smaller than the window.
    """
    gray = image.astype(np.float32).mean(axis=2)
    detail = np.abs(np.diff(gray, axis=0, append=gray[-1:])) + np.abs(np.diff(gray, axis=1, append=gray[:, -1:]))
    stride = max(size // 2 // step, 1) * step
    corners = [
        (top, left)
        for top in range(0, image.shape[0] - size + 1, stride)
        for left in range(0, image.shape[1] - size + 1, stride)
    ]
    return max(corners, key=lambda corner: detail[corner[0] : corner[0] + size, corner[1] : corner[1] + size].mean())


def panel_row(panels: Mapping[str, np.ndarray], corner: tuple[int, int], size: int, zoom: int) -> Image.Image:
    """The window at `corner`, (top, left), of uint8 images of one size, `zoom` times as large, each above its name."""
    top, left = corner
    side = size * zoom
    row = Image.new("RGB", (len(panels) * (side + MARGIN) + MARGIN, side + CAPTION + MARGIN), "white")
    draw = ImageDraw.Draw(row)
    for column, (caption, image) in enumerate(panels.items()):
        x = MARGIN + column * (side + MARGIN)
        crop = Image.fromarray(image[top : top + size, left : left + size])
        row.paste(crop.resize((side, side), Image.Resampling.NEAREST), (x, MARGIN))
        draw.text((x, MARGIN + side + 2), caption, fill="black", font=ImageFont.load_default(size=FONT_SIZE))
    return row


def labelled_panels(panels: Mapping[str, np.ndarray]) -> Image.Image:
    """Whole uint8 images (H, W, 3) of one size, side by side, each above its name."""
    height, width = next(iter(panels.values())).shape[:2]
    row = Image.new("RGB", (len(panels) * (width + MARGIN) + MARGIN, height + CAPTION + MARGIN), "white")
    draw = ImageDraw.Draw(row)
    for column, (caption, image) in enumerate(panels.items()):
        x = MARGIN + column * (width + MARGIN)
        row.paste(Image.fromarray(image), (x, MARGIN))
        draw.text((x, MARGIN + height + 2), caption, fill="black", font=ImageFont.load_default(size=FONT_SIZE))
    return row


def stack_rows(rows: Sequence[Image.Image]) -> np.ndarray:
    """Rows of panels below each other, as an uint8 image (H, W, 3)."""
    picture = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height
    return np.asarray(picture)
