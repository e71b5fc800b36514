"""Whole runs with other people's parts: BasicSR's files with another import line, and what is refused at once."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mambair.commands.test import main as run_tests
from mambair.options import plugins
from tests.engine.tiny_run import read_weights, same_weights, train, train_options, write_options

pytestmark = pytest.mark.usefixtures("plugins_forgotten")

# As they stand in projects that build on BasicSR, but for the import lines.
BASICSR = """\
import random
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn as nn
from torch.nn import functional as F
from torch.utils import data as data

from mambair.registry import ARCHS as ARCH_REGISTRY
from mambair.registry import DATASETS as DATASET_REGISTRY
from mambair.registry import LOSSES as LOSS_REGISTRY
from mambair.registry import METRICS as METRIC_REGISTRY


@ARCH_REGISTRY.register()
class TinySRNet(nn.Module):
    def __init__(self, num_in_ch=3, num_out_ch=3, num_feat=8, upscale=4):
        super(TinySRNet, self).__init__()
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch * upscale**2, 3, 1, 1)
        self.upscale = upscale

    def forward(self, x):
        base = F.interpolate(x, scale_factor=self.upscale, mode="bilinear", align_corners=False)
        return base + F.pixel_shuffle(self.conv_last(F.relu(self.conv_first(x))), self.upscale)


@DATASET_REGISTRY.register()
class TinyPairDataset(data.Dataset):
    def __init__(self, opt):
        super(TinyPairDataset, self).__init__()
        self.opt = opt
        self.paths = [
            {"lq_path": str(path), "gt_path": str(Path(opt["dataroot_gt"]) / path.name.replace("x2", ""))}
            for path in sorted(Path(opt["dataroot_lq"]).iterdir())
        ]

    def __getitem__(self, index):
        scale = self.opt["scale"]
        gt = cv2.imread(self.paths[index]["gt_path"]).astype(np.float32) / 255.0
        lq = cv2.imread(self.paths[index]["lq_path"]).astype(np.float32) / 255.0
        if self.opt["phase"] == "train":
            size = self.opt["gt_size"] // scale
            top = random.randint(0, lq.shape[0] - size)
            left = random.randint(0, lq.shape[1] - size)
            lq = lq[top : top + size, left : left + size]
            gt = gt[top * scale : (top + size) * scale, left * scale : (left + size) * scale]
            if self.opt["use_hflip"] and random.random() < 0.5:
                lq, gt = lq[:, ::-1], gt[:, ::-1]
        gt, lq = (torch.from_numpy(np.ascontiguousarray(img[:, :, ::-1].transpose(2, 0, 1))) for img in (gt, lq))
        return {"lq": lq, "gt": gt, **self.paths[index]}

    def __len__(self):
        return len(self.paths)


@LOSS_REGISTRY.register()
class TinyHuberLoss(nn.Module):
    def __init__(self, loss_weight=1.0, delta=0.1):
        super(TinyHuberLoss, self).__init__()
        self.loss_weight, self.delta = loss_weight, delta

    def forward(self, pred, target, weight=None, **kwargs):
        return self.loss_weight * F.huber_loss(pred, target, delta=self.delta)


@METRIC_REGISTRY.register()
def blue_error(img, img2, crop_border, input_order="HWC", test_y_channel=False, **kwargs):
    assert input_order == "HWC" and img.dtype == np.uint8
    img, img2 = (each[crop_border:-crop_border, crop_border:-crop_border, 0] for each in (img, img2))
    return np.abs(img.astype(np.float64) - img2).mean()
"""


def write_plugin(folder: Path, text: str = BASICSR, name: str = "their_parts.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def basicsr_changes(plugin: Path, **more: Any) -> dict[str, Any]:
    """A tiny run of which everything is theirs."""
    return {
        "plugins": [str(plugin)],
        "network_g": {"type": "TinySRNet", "upscale": 2, "num_feat": 6},
        "datasets__train__type": "TinyPairDataset",
        "datasets__train__filename_tmpl": None,
        "datasets__train__use_rot": None,
        "datasets__val__type": "TinyPairDataset",
        "train__pixel_opt": {"type": "TinyHuberLoss", "delta": 0.05},
        "val__metrics": {"blue": {"type": "blue_error", "crop_border": 2, "better": "lower"}},
        **more,
    }


STARTS: list[tuple[str, int, tuple[str, ...]]] = [("a", 6, ()), ("b", 4, ()), ("b", 6, ("--auto_resume",))]
"""Folder, iterations and arguments: one run goes through, the other is stopped and goes on."""


def best_scores(root: Path) -> dict[str, dict[str, Any]]:
    state = root / "experiments" / "tiny" / "training_states" / "6.state"
    return torch.load(state, weights_only=True)["best"]


def test_basicsrs_files_train_validate_resume_and_are_tested(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plugin = write_plugin(tmp_path)
    for folder, total, arguments in STARTS:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        assert train(root, *arguments, **basicsr_changes(plugin, train__total_iter=total)) == 0
    first, second = (read_weights(tmp_path / folder, 6) for folder in ("a", "b"))
    assert same_weights(first, second)
    assert first["mambair"] == {"type": "TinySRNet", "upscale": 2, "num_feat": 6, "plugin": "their_parts.py"}
    printed = capsys.readouterr().out
    assert "validation at 6 on held_out: blue " in printed
    assert best_scores(tmp_path / "a")["held_out/blue"]["value"] > 0
    options = train_options(tmp_path / "a", **basicsr_changes(plugin))
    test_file = {key: options[key] for key in ("scale", "num_gpu", "plugins", "network_g")}
    test_file |= {"name": "theirs", "datasets": {"test_1": options["datasets"]["val"]}}
    test_file |= {"val": {"metrics": options["val"]["metrics"]}}
    weights = tmp_path / "a" / "experiments" / "tiny" / "models" / "net_g_6.pth"
    test_file["path"] = {"root": str(tmp_path / "a"), "pretrain_network_g": str(weights)}
    assert run_tests(["-opt", str(write_options(tmp_path / "a", test_file, "test.yml"))]) == 0
    assert (tmp_path / "a" / "results" / "theirs" / "metrics.json").is_file()


def test_a_changed_plugin_is_said_when_resuming(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plugin = write_plugin(tmp_path)
    assert train(tmp_path, **basicsr_changes(plugin, train__total_iter=2)) == 0
    plugin.write_text(plugin.read_text() + "\n# another line\n")
    plugins._loaded.clear()  # as in a new process
    assert train(tmp_path, "--auto_resume", **basicsr_changes(plugin, train__total_iter=4)) == 0
    assert "plug-in their_parts.py, which has changed since" in capsys.readouterr().out
    copies = list((tmp_path / "experiments" / "tiny" / "plugins").iterdir())
    assert len(copies) == 2


def test_lists_of_losses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    losses = [
        {"type": "L1Loss"},
        {"type": "FourierLoss", "weight": 0.1, "from_iter": 4},
        {"type": "MSSSIMLoss", "weight": 0.2, "on": "y", "scales": 1},
        {"type": "LDLLoss"},
        {"type": "L1Loss", "weight": 0.5, "name": "l_again"},
    ]
    changes = {"train__pixel_opt": None, "train__losses": losses, "logger__print_freq": 1}
    assert train(tmp_path, **changes) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "iter " in line and "| l_" in line]
    assert all(name in lines[0] for name in ("l_l1 ", "l_msssim ", "l_ldl ", "l_again "))
    assert ["l_fourier" in line for line in lines] == [False] * 4 + [True] * 2


def test_the_best_weights_by_a_metric_that_is_to_fall(tmp_path: Path) -> None:
    """A metric that gets worse at every validation: the first weights stay the best, whatever PSNR says."""
    text = (
        "from mambair.registry import METRICS\ncalls = [0]\n@METRICS.register(higher_is_better=False)\n"
        "def growing(image):\n    calls[0] += 1\n    return float(calls[0])\n"
    )
    metrics = {"psnr": {"type": "calculate_psnr"}, "growing": {"type": "growing"}}
    changes = {"val__metrics": metrics, "val__best": "growing", "plugins": [str(write_plugin(tmp_path, text))]}
    assert train(tmp_path, **changes, train__total_iter=6) == 0
    assert best_scores(tmp_path)["held_out/growing"]["iter"] == 3
    assert not same_weights(read_weights(tmp_path, "best"), read_weights(tmp_path, 6))


@pytest.mark.parametrize("optimizer", ["AdamWScheduleFree", "SGDScheduleFree"])
def test_schedule_free_runs_go_on_exactly(tmp_path: Path, optimizer: str) -> None:
    """Stopped and resumed where a checkpoint is written anyway, with validations between."""
    pytest.importorskip("schedulefree")
    changes = {"train__optim_g": {"type": optimizer, "lr": 0.01}, "train__scheduler": None, "train__ema_decay": 0}
    for folder, total, arguments in STARTS:
        (tmp_path / folder).mkdir(exist_ok=True)
        more = {"train__total_iter": total, "val__val_freq": 2}
        assert train(tmp_path / folder, *arguments, **changes, **more) == 0
    first, second = (read_weights(tmp_path / folder, 6)["params"] for folder in ("a", "b"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_augmentations_and_degradations_in_a_run(tmp_path: Path) -> None:
    changes = {
        "datasets__train__type": "SyntheticDataset",
        "datasets__train__dataroot_lq": None,
        "datasets__train__degradation": [
            {"type": "BicubicReduction", "scale": 2},
            {"type": "GaussianNoise", "sigma": 5},
        ],
        "datasets__train__augmentations": [{"type": "ChannelShuffle"}],
        "train__augmentations": [{"type": "CutMix"}, {"type": "ResizeMix"}, {"type": "MixUp", "probability": 0.5}],
    }
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        assert train(tmp_path / folder, **changes, train__total_iter=3) == 0
    assert same_weights(read_weights(tmp_path / "a", 3), read_weights(tmp_path / "b", 3))
