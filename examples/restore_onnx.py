"""Restore a photo with a file of `mambair export`, in tiles, with NumPy, Pillow and onnxruntime alone.

Arguments: model.onnx photo.jpg restored.png
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

TILE, OVERLAP = 128, 16


def restore(session: onnxruntime.InferenceSession, image: np.ndarray, scale: int) -> np.ndarray:
    """(1, C, H, W) in [0, 1] -> (1, C, s*H, s*W); tiles are read with OVERLAP pixels around what is kept of them."""
    height, width = image.shape[2:]
    restored = np.zeros((*image.shape[:2], height * scale, width * scale), np.float32)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            y, x = max(top - OVERLAP, 0), max(left - OVERLAP, 0)
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            tile = np.ascontiguousarray(image[:, :, y : bottom + OVERLAP, x : right + OVERLAP])
            (result,) = session.run(None, {"image": tile})
            kept = result[:, :, (top - y) * scale : (bottom - y) * scale, (left - x) * scale : (right - x) * scale]
            restored[:, :, top * scale : bottom * scale, left * scale : right * scale] = kept
    return restored


def main(model: str, source: str, target: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=onnxruntime.get_available_providers())
    metadata = session.get_modelmeta().custom_metadata_map
    mode = "RGB" if metadata["mambair.channels"] == "3" else "L"
    pixels = np.asarray(Image.open(source).convert(mode), np.float32).reshape(*Image.open(source).size[::-1], -1) / 255
    restored = restore(session, pixels.transpose(2, 0, 1)[None], int(metadata["mambair.scale"]))[0].transpose(1, 2, 0)
    Image.fromarray(np.rint(restored.clip(0, 1) * 255).astype(np.uint8).squeeze()).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
