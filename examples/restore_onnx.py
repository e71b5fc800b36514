"""Restore a photo with a file of `mambair export`, in tiles, with NumPy, Pillow and onnxruntime alone.

Arguments: model.onnx photo.jpg restored.png
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

TILE, OVERLAP = 160, 16


def restore(session: onnxruntime.InferenceSession, image: np.ndarray, scale: int) -> np.ndarray:
    """(1, C, H, W) in [0, 1] -> (1, C, s*H, s*W); each tile replaces what those before it made near their ends."""
    high, wide = image.shape[2:]
    sides = zip(session.get_inputs()[0].shape[2:], (high, wide), strict=True)
    rows, columns = (side if isinstance(side, int) else min(TILE, full) for side, full in sides)  # --size, or any
    margin = min(OVERLAP, rows // 4, columns // 4)
    image = np.pad(image, [(0, 0), (0, 0), (0, max(rows - high, 0)), (0, max(columns - wide, 0))], "symmetric")
    restored = np.zeros((*image.shape[:2], image.shape[2] * scale, image.shape[3] * scale), np.float32)
    for top in range(0, high, rows - 2 * margin):
        for left in range(0, wide, columns - 2 * margin):
            y, x = (max(min(a - margin, full - b), 0) for a, b, full in ((top, rows, high), (left, columns, wide)))
            tile = np.ascontiguousarray(image[:, :, y : y + rows, x : x + columns])
            (result,) = session.run(None, {"image": tile})
            place = np.s_[:, :, top * scale : (y + rows) * scale, left * scale : (x + columns) * scale]
            restored[place] = result[:, :, (top - y) * scale :, (left - x) * scale :]
    return restored[:, :, : high * scale, : wide * scale]


def main(model: str, source: str, target: str) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.dynamic_block_base", "1")  # threads share operators in smaller parts
    session = onnxruntime.InferenceSession(model, options, providers=onnxruntime.get_available_providers())
    metadata = session.get_modelmeta().custom_metadata_map
    mode = "RGB" if metadata["mambair.channels"] == "3" else "L"
    pixels = np.asarray(Image.open(source).convert(mode), np.float32).reshape(*Image.open(source).size[::-1], -1) / 255
    restored = restore(session, pixels.transpose(2, 0, 1)[None], int(metadata["mambair.scale"]))[0].transpose(1, 2, 0)
    Image.fromarray(np.rint(restored.clip(0, 1) * 255).astype(np.uint8).squeeze()).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
