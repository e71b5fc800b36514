"""Real-world super-resolution and real denoising from option file to checkpoint: whole runs, resumed runs, errors."""

import re
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from mambair.commands import test as test_command
from mambair.commands import train as train_command
from mambair.imaging.files import write_image

ROOT = Path(__file__).resolve().parents[3]
RECIPES = ROOT / "options" / "train"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with photos and the weights of VGG19's first layers (random)."""
    monkeypatch.chdir(tmp_path)
    photo = np.ascontiguousarray(skimage.data.astronaut())
    for number in range(4):
        write_image(tmp_path / "photos" / f"{number}.png", photo[:200, number * 80 : number * 80 + 220])
    for number in range(2):
        write_image(tmp_path / "real" / f"{number}.png", photo[number * 40 : number * 40 + 23, 200:231])
    generator = torch.Generator().manual_seed(0)
    layers = {0: (3, 64), 2: (64, 64)}
    state = {f"features.{index}.bias": torch.zeros(out) for index, (_, out) in layers.items()}
    for index, (inputs, outputs) in layers.items():
        state[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * 0.05
    torch.save(state, tmp_path / "vgg.pth")
    return tmp_path


SMALL = [
    "num_gpu=0",
    "network_g:embed_dim=16",
    "network_g:depths=[1]",
    "network_g:d_state=2",
    "network_g:mlp_ratio=1.0",
    "train:amp=none",
    "logger:use_tb_logger=false",
    "logger:print_freq=1",
]
REAL_SR = [
    *SMALL,
    "gt_size=32",
    "queue_size=4",
    "datasets:train:gt_size=32",
    "datasets:train:dataroot_gt=photos",
    "datasets:train:num_worker_per_gpu=0",
    "datasets:train:batch_size_per_gpu=2",
    "datasets:val:dataroot_lq=real",
]
GAN = [
    *REAL_SR,
    "path:pretrain_network_g=~",
    "network_d:num_feat=4",
    "train:perceptual_opt:layer_weights={conv1_2: 1.0}",
    "train:perceptual_opt:vgg_weights=vgg.pth",
]


def train(recipe: str, overrides: list[str], name: str, iterations: int, *flags: str) -> Path:
    schedule = [f"name={name}", f"train:total_iter={iterations}", "val:val_freq=4", "logger:save_checkpoint_freq=2"]
    arguments = ["-opt", str(RECIPES / f"{recipe}.yml"), *flags, "--force_yml", *overrides, *schedule]
    assert train_command.main(arguments) == 0
    return Path("experiments") / name


def weights(experiment: Path, network: str, iteration: int) -> dict:
    return torch.load(experiment / "models" / f"{network}_{iteration}.pth", weights_only=True)


def losses(experiment: Path) -> str:
    return "".join(path.read_text() for path in sorted(experiment.glob("*.log")))


def test_stage_two_resumes_exactly_with_queue_discriminator_and_average(workspace):
    through = train("RealSR_x4_gan", GAN, "through", 4)
    train("RealSR_x4_gan", GAN, "halves", 2)
    halves = train("RealSR_x4_gan", GAN, "halves", 4, "--auto_resume")
    for network, keys in (("net_g", ("params", "params_ema")), ("net_d", ("params",))):
        first, second = (weights(experiment, network, 4) for experiment in (through, halves))
        for key in keys:
            for name, value in first[key].items():
                assert torch.equal(value, second[key][name]), f"{network} {key} {name}"
    log = losses(through)
    values = {key: re.findall(rf"{key} (-?[0-9.e+-]+)", log) for key in ("l_pix", "l_percep", "l_g_gan", "l_d")}
    assert all(len(found) == 4 and np.isfinite(np.array(found, float)).all() for found in values.values()), values
    assert list((through / "visualization").rglob("*.png"))  # photos without ground truth are still restored


def test_stage_one_then_test_without_ground_truth(workspace):
    experiment = train("RealSR_x4_mse", REAL_SR, "stage1", 2)
    test = ["-opt", str(ROOT / "options" / "test" / "RealSR_x4.yml"), "--force_yml", *SMALL[:5]]
    test += [f"path:pretrain_network_g={experiment / 'models' / 'net_g_2.pth'}", "datasets:test_1:dataroot_lq=real"]
    assert test_command.main(test) == 0
    assert len(list(Path("results/RealSR_x4").rglob("*.png"))) == 2
    page = Path("results/RealSR_x4/report.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 2


def test_missing_perceptual_weights_are_one_line(workspace, capsys):
    overrides = [*GAN, "train:perceptual_opt:vgg_weights=nowhere.pth", "name=x"]
    code = train_command.main(["-opt", str(RECIPES / "RealSR_x4_gan.yml"), "--force_yml", *overrides])
    assert code == 2
    assert "nowhere.pth" in capsys.readouterr().err
    assert not Path("experiments").exists()


def test_real_denoising_goes_through_its_stages(workspace):
    noise = np.random.default_rng(0)
    for part in ("input_crops", "target_crops"):
        for number in range(3):
            image = noise.integers(256, size=(40, 48, 3), dtype=np.uint8)
            write_image(workspace / part / f"{number}.png", image)
    overrides = [
        "num_gpu=0",
        "network_g:dim=4",
        "network_g:num_blocks=[1, 1, 1, 1]",
        "network_g:num_refinement_blocks=1",
        "train:amp=none",
        "logger:use_tb_logger=false",
        "logger:print_freq=1",
        "datasets:train:num_worker_per_gpu=0",
        *(f"datasets:{phase}:dataroot_gt=target_crops" for phase in ("train", "val")),
        *(f"datasets:{phase}:dataroot_lq=input_crops" for phase in ("train", "val")),
        "datasets:train:gt_size=32",
        "datasets:train:mini_batch_sizes=[3, 2]",
        "datasets:train:gt_sizes=[16, 32]",
        "datasets:train:iters=[2, 2]",
        "train:scheduler:periods=[2, 2]",
    ]
    experiment = train("RealDN", overrides, "denoising", 4)
    log = losses(experiment)
    assert "total batch 3" in log and "total batch 2" in log
    rates = [float(rate) for rate in re.findall(r"lr ([0-9.e+-]+)", log)]
    assert rates[0] == rates[1] == rates[2] == 3e-4 and rates[3] < 2e-4  # constant, then down a cosine
    assert "psnr" in log
