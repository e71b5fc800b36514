"""MambaIRv2 in the trainer: what is drawn belongs to the batch, so that a run that was interrupted ends the same."""

from pathlib import Path

from tests.engine.tiny_run import HARD, train
from tests.faults.runs import assert_same_end

V2 = {
    "type": "MambaIRv2Light", "upscale": 2, "embed_dim": 8, "depths": [2], "num_heads": [2], "d_state": 2,
    "window_size": 4, "inner_rank": 2, "num_tokens": 4, "convffn_kernel_size": 3, "mlp_ratio": 1.0,
    "upsampler": "pixelshuffledirect",
}  # fmt: skip
CHANGES = {key: value for key, value in HARD.items() if not key.startswith("network_g")} | {
    "network_g": V2,
    "model_type": "MambaIRv2LightModel",
    "train__mixing_augs": None,
}


def test_a_run_in_two_halves_ends_as_one(tmp_path: Path) -> None:
    """Also with recomputation in the backward pass, which must meet the same tokens."""
    changes = CHANGES | {"network_g": V2 | {"use_checkpoint": True}}
    assert train(tmp_path / "whole", **changes) == 0
    assert train(tmp_path / "halves", **changes, train__total_iter=4) == 0
    assert train(tmp_path / "halves", "--auto_resume", **changes) == 0
    assert_same_end(tmp_path / "whole", tmp_path / "halves", 6)
