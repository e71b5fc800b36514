"""A training run of seconds: photos that scikit-image ships, a network of a few thousand weights, option files."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from skimage import data

from mambair.commands.train import main as train_main
from mambair.imaging.files import write_image
from mambair.imaging.resize import imresize

SCALE = 2

# DropPath is on, so that what draws from torch's global generators is tested too.
NETWORK = {
    "type": "MambaIR",
    "upscale": SCALE,
    "embed_dim": 8,
    "depths": [2],
    "d_state": 2,
    "mlp_ratio": 1.0,
    "drop_path_rate": 0.3,
    "upsampler": "pixelshuffledirect",
}

METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": SCALE, "test_y_channel": True},
    "ssim": {"type": "calculate_ssim", "crop_border": SCALE, "test_y_channel": True},
}


# All at once that could differ after resuming: MixUp, two epochs and a half, patches and an EMA that grow, DropPath.
HARD = {
    "model_type": "ImageCleanModel",
    "train__mixing_augs": {"mixup": True, "mixup_beta": 1.2, "use_identity": True},
    "datasets__train__mini_batch_sizes": [2, 1],
    "datasets__train__iters": [3, 100],
    "datasets__train__gt_sizes": [16, 24],
    "datasets__train__gt_size": 24,
    "train__optim_g": {"type": "AdamW", "lr": 1e-3, "weight_decay": 1e-2, "betas": [0.9, 0.99]},
    "train__use_grad_clip": True,
    "train__ema_warmup": True,
}


def write_pairs(folder: Path, names: tuple[str, ...], size: int) -> dict[str, Any]:
    """Write middles of photos with their half-size versions; returns the data set's section."""
    for name in names:
        photo = getattr(data, name)()
        top, left = ((length - size) // 2 for length in photo.shape[:2])
        crop = photo[top : top + size, left : left + size]
        write_image(folder / "HR" / f"{name}.png", crop)
        write_image(folder / "LR" / f"{name}x{SCALE}.png", imresize(crop, 1 / SCALE))
    return {
        "name": folder.name,
        "type": "PairedImageDataset",
        "dataroot_gt": str(folder / "HR"),
        "dataroot_lq": str(folder / "LR"),
        "filename_tmpl": f"{{}}x{SCALE}",
    }


def train_options(root: Path, **changes: Any) -> dict[str, Any]:
    """A training file as a dict, its data below `root`; `changes` are by key path: train__total_iter=3.

    The value None removes a key.
    """
    train_set = write_pairs(root / "photos", ("astronaut", "coffee", "chelsea"), 64)
    options = {
        "name": "tiny",
        "model_type": "MambaIRModel",
        "scale": SCALE,
        "num_gpu": 0,
        "manual_seed": 3,
        "datasets": {
            "train": {
                **train_set,
                "gt_size": 16,
                "use_hflip": True,
                "use_rot": True,
                "num_worker_per_gpu": 0,
                "batch_size_per_gpu": 2,
            },
            "val": write_pairs(root / "held_out", ("rocket", "coffee", "astronaut"), 48),
        },
        "network_g": copy.deepcopy(NETWORK),
        "path": {"root": str(root)},
        "train": {
            "total_iter": 6,
            "ema_decay": 0.5,
            "optim_g": {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [4], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": 3, "metrics": copy.deepcopy(METRICS)},
        "logger": {"print_freq": 2, "save_checkpoint_freq": 2},
    }
    return changed(options, changes)


def test_options(root: Path, weights: Path, **changes: Any) -> dict[str, Any]:
    """A test file as a dict."""
    options = {
        "name": "tiny_test",
        "scale": SCALE,
        "num_gpu": 0,
        "datasets": {"test_1": write_pairs(root / "held_out", ("rocket", "coffee", "astronaut"), 48)},
        "network_g": copy.deepcopy(NETWORK),
        "path": {"root": str(root), "pretrain_network_g": str(weights)},
        "val": {"metrics": copy.deepcopy(METRICS)},
    }
    return changed(options, changes)


test_options.__test__ = False  # not a test case, whatever pytest thinks of the name


def changed(options: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the values at the given key paths set, or removed where they are None."""
    for path, value in changes.items():
        *blocks, key = path.split("__")
        block = options
        for name in blocks:
            block = block.setdefault(name, {})
        if value is None:
            block.pop(key, None)
        else:
            block[key] = copy.deepcopy(value)
    return options


def write_options(root: Path, options: Mapping[str, Any], name: str = "options.yml") -> Path:
    """Write an option file."""
    path = root / name
    path.write_text(yaml.safe_dump(dict(options)), encoding="utf-8")
    return path


def train(root: Path, *arguments: str, **changes: Any) -> int:
    """Run `mambair train` in this process; returns its exit code."""
    path = write_options(root, train_options(root, **changes))
    return train_main(["-opt", str(path), *arguments])


def read_weights(root: Path, iteration: int | str, name: str = "tiny") -> dict[str, dict[str, torch.Tensor]]:
    """models/net_g_<iteration>.pth of a run below `root`."""
    return torch.load(root / "experiments" / name / "models" / f"net_g_{iteration}.pth", weights_only=True)


def same_weights(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two weight files hold the same numbers, to the last bit."""
    keys = ("params", "params_ema")
    return all(
        first[key].keys() == second[key].keys() and all(torch.equal(first[key][k], second[key][k]) for k in first[key])
        for key in keys
    )
