"""That OpenVINO takes the files too; where it is installed (pip install openvino, 180 MB, in no extra)."""

from pathlib import Path

import numpy as np
import pytest

openvino = pytest.importorskip("openvino")


def test_openvino_gives_the_same_picture(any_size: Path) -> None:
    import onnxruntime

    core = openvino.Core()
    # By itself it computes in bfloat16 where the processor has it.
    compiled = core.compile_model(core.read_model(any_size), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(str(any_size), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 33, 21), (2, 3, 40, 48)):
        image = np.random.default_rng(0).random(shape, np.float32)
        (expected,) = session.run(None, {"image": image})
        assert np.abs(compiled(image)[0] - expected).max() < 1e-4 * np.abs(expected).max()
