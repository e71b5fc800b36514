"""Option files with mistakes in them, and runs that go on under other options: a message, and no file is touched."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.faults.runs import assert_same_end, read_state
from tests.faults.scene import Scene, at_step


class Mistake(NamedTuple):
    """Changed options, and what is said of them."""

    name: str
    changes: dict[str, Any]
    message: str


MISTAKES = [
    Mistake("unknown key", {"train__total_itr": 9}, "train.total_itr: unknown key; did you mean 'total_iter'"),
    Mistake(
        "number that is none", {"train__total_iter": "many"}, "train.total_iter: expected a whole number, got 'many'"
    ),
    Mistake("nothing to do", {"train__total_iter": 0}, "train.total_iter: "),
    Mistake("number too large", {"manual_seed": 2**70}, "manual_seed: expected a whole number"),
    Mistake("no checkpoints to keep", {"logger__keep_checkpoints": 0}, "logger.keep_checkpoints: "),
    Mistake("negative limit", {"datasets__train__max_bad_samples": -1}, "datasets.train.max_bad_samples: "),
    Mistake("unknown model", {"model_type": "MambaModel"}, "unknown model 'MambaModel'; did you mean 'MambaIRModel'"),
    Mistake("unknown loss", {"train__pixel_opt__type": "L2"}, "train.pixel_opt"),
    Mistake("unknown metric", {"val__metrics__psnr__type": "psnr"}, "val.metrics.psnr"),
    Mistake(
        "no folder", {"datasets__train__dataroot_gt": "nowhere"}, "datasets.train.dataroot_gt: nowhere: no such folder"
    ),
    Mistake("no weights", {"path__resume_state": "nowhere/4.state", "name": "other"}, "nowhere/4.state does not exist"),
    Mistake(
        "negative rate", {"train__optim_g__lr": -1}, "train.optim_g: AdamW cannot be built from these values (Invalid"
    ),
    Mistake("no betas", {"train__optim_g__betas": []}, "train.optim_g: AdamW cannot be built from these values"),
    Mistake("no state", {"network_g__d_state": -1}, "network_g: MambaIR cannot be built from these values"),
    Mistake("odds above 1", {"network_g__drop_path_rate": 1.5}, "drop_path_rate: 1.5 must lie between 0 and 1"),
    Mistake("another network", {"network_g__embed_dim": 12}, "set network_g.embed_dim: 8"),
    Mistake("more blocks", {"network_g__depths": [2, 2]}, "set network_g.depths: [2]"),
    Mistake("another scale", {"scale": 3}, "network_g.upscale: is 2 but scale is 3; make them equal"),
    Mistake("patches too large", {"datasets__train__gt_sizes": [16, 640]}, "64x64 pixels are too few for gt_size 640"),
    Mistake("no validation set", {"datasets__val": None}, "val.val_freq: there is no data set to validate on"),
    Mistake("fp16 without a GPU", {"train__amp": "fp16"}, "amp: fp16 needs a CUDA GPU"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistakes_change_nothing(scene: Scene, mistake: Mistake) -> None:
    before = scene.snapshot()
    outcome = scene.train(**mistake.changes)
    assert outcome.code == 2
    assert "error: " in outcome.output
    assert mistake.message in outcome.output
    assert "Traceback" not in outcome.output
    assert scene.snapshot() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: b"", "options.yml: the file is empty"),
        (lambda text: text[: len(text) // 2].encode() + b"\n: [", "not a valid option file"),
        (lambda text: text.encode() + b"\xff\xfe", "options.yml: not a text file in UTF-8"),
        (lambda text: (text + "name: twice\n").encode(), "key 'name' stands here a second time"),
        (lambda text: (text + "#" * (5 << 20)).encode(), "larger than 4 MiB; this is no option file"),
        (lambda text: ("a: " + "[" * 3000).encode(), "nested too deeply"),
        (
            lambda text: b"a: &a [" + b"x," * 500 + b"]\nb: &b [" + b"*a," * 500 + b"]\nc: [" + b"*b," * 9 + b"]",
            "aliases",
        ),
        (lambda text: b"- a\n- b\n", "options.yml: expected KEY: VALUE lines"),
        (lambda text: b"\x89PNG\r\n\x1a\n\0\0", "options.yml: not a text file in UTF-8"),
    ],
    ids=["empty", "cut", "binary", "key twice", "huge", "deep", "bomb", "a list", "an image"],
)
def test_files_that_are_no_option_files(scene: Scene, change: Callable[[str], bytes], message: str) -> None:
    file = scene.write_options()
    file.write_bytes(change(file.read_text()))
    before = scene.snapshot()
    outcome = scene.train(options=file)
    assert outcome.code == 2
    assert message in outcome.output
    assert "Traceback" not in outcome.output
    assert scene.snapshot() == before


def test_going_on_with_another_seed_warns(scene: Scene) -> None:
    outcome = scene.train(manual_seed=4)
    assert outcome.code == 0
    assert "manual_seed is 4, but the checkpoint was made with 3: samples come in another order" in outcome.output
    scene.assert_checkpoint_kept()


def test_going_on_without_the_validation_that_is_due(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda stepper: os.kill(os.getpid(), signal.SIGTERM))
        assert scene.train().code == 143
    assert read_state(scene.root, 6)["validation_pending"]
    assert scene.train(val=None).code == 0
    scene.assert_nothing_lost()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_going_on_elsewhere_without_the_gpu(scene: Scene) -> None:
    before = scene.snapshot()
    outcome = scene.train(num_gpu=1)
    assert outcome.code == 2
    assert "num_gpu: 1 asks for CUDA" in outcome.output
    assert scene.snapshot() == before


def test_going_on_in_a_copy_elsewhere(scene: Scene, tmp_path: Path) -> None:
    """An experiment's folder can be moved: nothing in it names the place it was written at."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (scene.root / "experiments").rename(elsewhere / "experiments")
    outcome = scene.train(path__root=str(elsewhere))
    assert outcome.code == 0
    assert_same_end(scene.reference, elsewhere, 6)
