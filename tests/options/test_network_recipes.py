"""Recipes of docs/networks.md and docs/results.md: what is alike, what they learn from; tests fit their training."""

from pathlib import Path

import pytest
import yaml

from mambair.archs import build_network
from mambair.data.degradations.single_image import STRENGTHS
from mambair.models.real_sr_model import _rounds
from mambair.options import TrainOptions, parse_test_options, parse_train_options

RECIPES = Path(__file__).resolve().parents[2] / "options"
SCALES = {"x2": 2, "x3": 3, "x4": 4, "denoise": 1, "jpeg": 1, "photo_x1": 1, "photo_x4": 4}
STARTS = {"x3": "x2", "x4": "x2", "jpeg": "denoise", "photo_x1": "denoise", "photo_x4": "x4"}
"""What the fine-tuned ones start from."""
PHOTO = ("photo_x1", "photo_x4")


def recipe(name: str) -> TrainOptions:
    return parse_train_options(RECIPES / "train" / f"{name}.yml")


@pytest.mark.parametrize("name", SCALES)
def test_all_are_trained_alike(name: str) -> None:
    options, light = recipe(name), recipe("lightSR_x2_BSD400")
    train, total, patch = options.train, *((8000, 48) if name in STARTS else (15_000, 64))
    assert options.name == name and options.scale == SCALES[name] and options.source.warnings == ()
    assert (train.total_iter, train.warmup_iter) == (total, 500)
    assert train.scheduler == {"type": "CosineAnnealingLR", "T_max": total, "eta_min": 1e-6}
    assert train.optim_g == {**light.train.optim_g, "lr": 5e-4} and train.pixel_opt == light.train.pixel_opt
    assert (train.ema_decay, train.ema_warmup, train.amp) == (0.999, True, "auto")
    for world_size in (1, 2, 4):
        (stage,) = options.stages(world_size)
        assert (stage.total_batch, stage.gt_size) == (16, patch * options.scale)
    dataset = options.datasets["train"]
    assert [root.as_posix() for root in dataset.dataroot_gt] == ["datasets/BSD400/HR", "datasets/photos/HR"]
    assert dataset.use_hflip and dataset.use_rot
    assert [term.type for term in train.losses] == (["FourierLoss"] if name in PHOTO else [])


@pytest.mark.parametrize("name", SCALES)
def test_networks_are_the_light_one_of_their_scale(name: str) -> None:
    scale = SCALES[name]
    network = recipe(name).network_g
    light = {**recipe("lightSR_x2_BSD400").network_g, "upscale": scale}
    if scale == 1:
        light |= {"upsampler": "", "local_block": "light_cab"}
    assert network == light
    count = sum(parameter.numel() for parameter in build_network(network).parameters())
    assert 850_000 < count < 1_200_000


@pytest.mark.parametrize(
    ("name", "own", "network"),
    [
        ("MambaIR", {}, "x2"),
        ("MambaIRv2", {"model_type": "MambaIRv2LightModel"}, "v2_lightSR_x2"),
        ("SwinIR", {"compile": True}, "SwinIR_light_x2_BSD400"),
    ],
)
def test_networks_that_are_compared_are_trained_alike(name: str, own: dict, network: str) -> None:
    def plain(stem: str) -> dict:
        options = yaml.safe_load((RECIPES / "train" / f"{stem}.yml").read_text(encoding="utf-8"))
        return {key: value for key, value in options.items() if key not in ("name", "network_g")}

    expected = plain("x2")
    train, compared = expected["train"], f"compare_x2_{name}"
    train["total_iter"] = train["scheduler"]["T_max"] = 5000
    expected["val"]["val_freq"] = 500
    (train if "compile" in own else expected).update(own)
    assert plain(compared) == expected
    options = recipe(compared)
    assert (options.name, options.source.warnings) == (compared, ())
    assert options.network_g == recipe(network).network_g


@pytest.mark.parametrize("name", SCALES)
def test_fine_tuned_ones_take_the_last_averaged_weights_of_their_start(name: str) -> None:
    path = recipe(name).path
    if name in STARTS:
        start = recipe(STARTS[name])
        assert path.pretrain_network_g == Path(f"experiments/{start.name}/models/net_g_{start.train.total_iter}.pth")
        assert path.param_key_g == "params_ema"
        assert path.strict_load_g == (start.scale == SCALES[name]), "another scale has another head"
    else:
        assert path.pretrain_network_g is None


def test_what_the_blind_networks_learn_from_is_drawn_and_validation_is_not() -> None:
    for name, drawn, fixed in (
        ("denoise", {"type": "RandomGaussianNoise", "sigma": [0, 55], "clip_odds": 0.5}, [15, 25, 50]),
        ("jpeg", {"type": "RandomJpeg", "quality": [10, 95], "full_chroma_odds": 0.5}, [10, 20, 40]),
    ):
        sections = dict(recipe(name).datasets)
        assert sections.pop("train").degradation == [drawn]
        levels = [section.noise if name == "denoise" else section.quality for section in sections.values()]
        assert levels == fixed
        assert all(section.color == ("rgb" if name == "jpeg" else None) for section in sections.values())


@pytest.mark.parametrize("name", PHOTO)
def test_photo_spells_the_moderate_degradation_out(name: str) -> None:
    options = recipe(name)
    moderate = STRENGTHS["moderate"]
    assert options.model_type == "RealESRNetModel"
    assert _rounds(options) == (moderate.first, moderate.second)
    keys = options.datasets["train"].kernel_options()
    assert keys.pop("final_sinc_prob") == moderate.final_sinc_odds
    for suffix, kernels in (("", moderate.first_kernels), ("2", moderate.second_kernels)):
        own = {key.removesuffix("2"): value for key, value in keys.items() if key.endswith("2") == bool(suffix)}
        assert own == {
            "blur_kernel_size": kernels.size,
            "kernel_list": list(kernels.kinds),
            "kernel_prob": list(kernels.odds),
            "sinc_prob": kernels.sinc_odds,
            "blur_sigma": list(kernels.sigma),
            "betag_range": list(kernels.beta_gaussian),
            "betap_range": list(kernels.beta_plateau),
        }
    assert not options.lq_usm and not options.l1_gt_usm, "a clean photo is to stay as it is"
    assert options.queue_size % 16 == 0


TESTED = {
    "sr": ["Set5", "Set14", "B100", "Urban100"],
    "denoise": [f"{name}_sigma{sigma}" for name in ("CBSD68", "Kodak24", "McMaster") for sigma in (15, 25, 50)],
    "jpeg": [f"{name}_q{quality}" for name in ("LIVE1", "classic5") for quality in (10, 20, 30, 40)],
    "photo": ["Set5", "McMaster", "RealSRSet"],
}


@pytest.mark.parametrize("name", SCALES)
def test_tests_fit_their_training(name: str) -> None:
    trained, options = recipe(name), parse_test_options(RECIPES / "test" / f"{name}.yml")
    assert options.source.warnings == () and options.name == name and options.scale == SCALES[name]
    assert options.network_g == trained.network_g
    assert options.path.pretrain_network_g == Path(f"experiments/{name}/models/net_g_{trained.train.total_iter}.pth")
    assert options.path.param_key_g == "params_ema"
    assert options.val.metrics == trained.val.metrics
    sets = options.evaluation_datasets()
    assert list(sets) == TESTED["sr" if name.startswith("x") else name.partition("_")[0]]
    for label, section in sets.items():
        if "_sigma" in label:
            assert label.endswith(f"_sigma{section.noise:g}")
        if "_q" in label:
            assert label.endswith(f"_q{section.quality}") and section.color == "rgb"
