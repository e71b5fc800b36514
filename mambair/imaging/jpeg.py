"""JPEG compression of arrays."""

import cv2
import numpy as np

_SAMPLING = {False: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, True: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444}


def jpeg_compress(image: np.ndarray, quality: int, *, full_chroma: bool = False) -> np.ndarray:
    """Compress and decompress a uint8 HxWx3 (RGB) or HxWx1 (gray) image by JPEG at `quality` 1 to 100.

    Colour uses the usual 4:2:0 chroma subsampling, with `full_chroma` 4:4:4; the result has the input's shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"expected a uint8 image of shape (H, W, 1) or (H, W, 3), got {image.dtype} {image.shape}")
    if not 1 <= quality <= 100:
        raise ValueError(f"expected a JPEG quality from 1 to 100, got {quality}")
    color = image.shape[2] == 3
    source = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if color else np.ascontiguousarray(image)
    settings = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    if color:
        settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING[full_chroma]]
    written, data = cv2.imencode(".jpg", source, settings)
    if not written:
        raise ValueError(f"OpenCV cannot compress an image of shape {image.shape} as JPEG")
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE)
    assert decoded is not None, "OpenCV reads what it wrote"
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if color else decoded[:, :, None]
