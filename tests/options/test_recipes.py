"""Every recipe loads, its network builds, and its figures are those of the paper and its published settings."""

from pathlib import Path

import pytest
import yaml

import mambair.losses  # noqa: F401 (registers the losses)
from mambair.archs import build_network
from mambair.data.builders import _mode
from mambair.errors import UserError
from mambair.models.components import build_generator
from mambair.options import TrainOptions, parse_test_options, parse_train_options
from mambair.registry import LOSSES

RECIPES = Path(__file__).resolve().parents[2] / "options"
IN_THE_BOX = {"x2", "x3", "x4", "denoise", "jpeg", "photo_x1", "photo_x4"}
COMPARED = {"compare_x2_MambaIR", "compare_x2_MambaIRv2", "compare_x2_SwinIR"}
ELSEWHERE = IN_THE_BOX | COMPARED
"""Of docs/networks.md and docs/results.md: tests/options/test_network_recipes.py has them."""
TRAIN_RECIPES = sorted(path for path in (RECIPES / "train").glob("*.yml") if path.stem not in ELSEWHERE)
TEST_RECIPES = sorted(path for path in (RECIPES / "test").glob("*.yml") if path.stem not in ELSEWHERE)

LONG_SR = (500_000, [250_000, 400_000, 450_000, 475_000], 2e-4, 32)
SHORT_SR = (250_000, [125_000, 200_000, 225_000, 237_500], 1e-4, 32)
LONG_RESTORATION = (1_600_000, [800_000, 1_200_000, 1_400_000, 1_500_000], 2e-4, 16)
BSD400_SR = (20_000, [10_000, 16_000, 18_000, 19_000], 2e-4, 32)
BSD400_RESTORATION = (60_000, [30_000, 45_000, 52_500, 56_250], 2e-4, 16)
SHORT_RESTORATION = (800_000, [400_000, 600_000, 700_000, 750_000], 1e-4, 16)

# name -> (iterations, milestones, learning rate, total batch), ground-truth patch, loss, weights to start from
FIGURES = {
    "SR_x2": (LONG_SR, 128, "L1Loss", None),
    "SR_x3": (SHORT_SR, 192, "L1Loss", "experiments/SR_x2/models/net_g_500000.pth"),
    "SR_x4": (SHORT_SR, 256, "L1Loss", "experiments/SR_x2/models/net_g_500000.pth"),
    "lightSR_x2": (LONG_SR, 128, "L1Loss", None),
    "lightSR_x3": (LONG_SR, 192, "L1Loss", None),
    "lightSR_x4": (LONG_SR, 256, "L1Loss", None),
    "lightSR_x2_BSD400": (BSD400_SR, 128, "L1Loss", None),
    "SwinIR_light_x2_BSD400": (BSD400_SR, 128, "L1Loss", None),
    "ColorDN_15": (LONG_RESTORATION, 128, "CharbonnierLoss", None),
    "ColorDN_25_BSD400": (BSD400_RESTORATION, 64, "CharbonnierLoss", None),
    "ColorDN_25": (SHORT_RESTORATION, 128, "CharbonnierLoss", "experiments/ColorDN_15/models/net_g_1600000.pth"),
    "ColorDN_50": (SHORT_RESTORATION, 128, "CharbonnierLoss", "experiments/ColorDN_15/models/net_g_1600000.pth"),
    "CAR_q40": (LONG_RESTORATION, 126, "CharbonnierLoss", None),
    "CAR_q10": (SHORT_RESTORATION, 126, "CharbonnierLoss", "experiments/CAR_q40/models/net_g_1600000.pth"),
    "CAR_q30": (SHORT_RESTORATION, 126, "CharbonnierLoss", "experiments/CAR_q40/models/net_g_1600000.pth"),
    "CAR_q20": (SHORT_RESTORATION, 126, "CharbonnierLoss", "experiments/CAR_q40/models/net_g_1600000.pth"),
    "colorCAR_q40": (LONG_RESTORATION, 126, "CharbonnierLoss", None),
    **{
        f"colorCAR_q{quality}": (
            SHORT_RESTORATION,
            126,
            "CharbonnierLoss",
            "experiments/colorCAR_q40/models/net_g_1600000.pth",
        )
        for quality in (10, 20, 30)
    },
    "GrayDN_15": (LONG_RESTORATION, 128, "CharbonnierLoss", None),
    "GrayDN_25": (SHORT_RESTORATION, 128, "CharbonnierLoss", "experiments/GrayDN_15/models/net_g_1600000.pth"),
    "GrayDN_50": (SHORT_RESTORATION, 128, "CharbonnierLoss", "experiments/GrayDN_15/models/net_g_1600000.pth"),
    **{
        f"v2_{kind}_x{scale}": (
            LONG_SR if scale == 2 or kind == "lightSR" else SHORT_SR,
            128 if scale == 2 else 192,
            "L1Loss",
            None if scale == 2 or kind == "lightSR" else f"experiments/v2_{kind}_x2/models/net_g_500000.pth",
        )
        for kind in ("lightSR", "SRSmall", "SR", "SRLarge")
        for scale in (2, 3, 4)
    },
    **{
        f"v2_{name}": (
            LONG_RESTORATION if start is None else SHORT_RESTORATION,
            patch,
            "CharbonnierLoss",
            start and f"experiments/v2_{start}/models/net_g_1600000.pth",
        )
        for name, patch, start in (
            ("ColorDN_15", 128, None),
            ("ColorDN_25", 128, "ColorDN_15"),
            ("ColorDN_50", 128, "ColorDN_15"),
            ("CAR_q40", 126, None),
            ("CAR_q10", 126, "CAR_q40"),
            ("CAR_q30", 126, "CAR_q40"),
        )
    },
    "RealSR_x4_mse": ((1_000_000, [1_000_000], 1e-4, 32), 256, "L1Loss", None),
    "RealSR_x4_gan": (
        (400_000, [400_000], 1e-4, 32),
        256,
        "L1Loss",
        "experiments/RealSR_x4_mse/models/net_g_1000000.pth",
    ),
}

PARAMETERS = {
    "SR_x2": 20_421_863,
    "SR_x3": 20_606_503,
    "SR_x4": 20_569_575,
    "lightSR_x2": 905_016,
    "lightSR_x3": 913_131,
    "lightSR_x4": 924_492,
    "lightSR_x2_BSD400": 905_016,
    "SwinIR_light_x2_BSD400": 910_152,
    "ColorDN_15": 15_777_507,
    "ColorDN_25_BSD400": 991731,
    "CAR_q10": 15_771_025,
    "RealDN": 26_779_480,
    "RealSR_x4": 20_569_575,
    "v2_lightSR_x2": 774_092,
    "v2_lightSR_x3": 780_587,
    "v2_lightSR_x4": 789_680,
    "v2_SRSmall_x2": 9_621_935,
    "v2_SR_x2": 22_903_001,
    "v2_SR_x3": 23_087_641,
    "v2_SR_x4": 23_050_713,
    "v2_SRLarge_x2": 34_090_523,
    "v2_ColorDN_50": 22_657_971,
    "v2_CAR_q30": 22_651_705,
}


def recipe(name: str) -> TrainOptions:
    return parse_train_options(RECIPES / "train" / f"{name}.yml")


def test_there_is_a_recipe_for_every_task() -> None:
    assert {path.stem for path in TRAIN_RECIPES} == {*FIGURES, "RealDN", "quickstart"}
    names = {name for name in FIGURES if not name.startswith("RealSR")}
    assert {path.stem for path in TEST_RECIPES} == names | {"RealDN", "RealSR_x4", "quickstart", "quickstart_shipped"}


@pytest.mark.parametrize("path", TRAIN_RECIPES, ids=lambda path: path.stem)
def test_training_recipes_load_without_warnings(path: Path) -> None:
    options = parse_train_options(path)
    assert options.name == path.stem
    assert options.source.warnings == ()
    assert options.train.pixel_opt["type"] in LOSSES


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_the_recipes(name: str) -> None:
    (iterations, milestones, rate, total_batch), patch, loss, start = FIGURES[name]
    options = recipe(name)
    train = options.train
    assert (train.total_iter, train.warmup_iter) == (iterations, -1)
    assert train.scheduler == {"type": "MultiStepLR", "milestones": milestones, "gamma": 0.5}
    assert train.optim_g == {"type": "Adam", "lr": rate, "weight_decay": 0, "betas": [0.9, 0.99]}
    for world_size in (1, 3, 8):
        (stage,) = options.stages(world_size)
        assert (stage.total_batch, stage.gt_size) == (total_batch, patch)
    assert train.pixel_opt["type"] == loss and train.pixel_opt["loss_weight"] == 1.0
    assert train.pixel_opt.get("eps") == (1e-6 if loss == "CharbonnierLoss" else None)
    assert (options.path.pretrain_network_g and options.path.pretrain_network_g.as_posix()) == start
    skips_the_head = start is not None and options.scale > 1 and "RealSR" not in name
    assert options.path.strict_load_g != skips_the_head
    dataset = options.datasets["train"]
    assert dataset.use_hflip and dataset.use_rot
    assert train.ema_decay == (0.999 if name.startswith("RealSR") or name.endswith("BSD400") else 0)


@pytest.mark.parametrize("name", [name for name in FIGURES if "DN_" in name or "CAR_" in name])
def test_degradation_strength_is_that_of_the_name(name: str) -> None:
    level = int(name.removeprefix("v2_").split("_")[1].lstrip("q"))
    for options in (recipe(name), parse_test_options(RECIPES / "test" / f"{name}.yml")):
        for dataset in options.datasets.values():
            assert (dataset.noise if "DN_" in name else dataset.quality) == level


def test_networks_that_are_compared_are_trained_alike() -> None:
    ours, other = (
        yaml.safe_load((RECIPES / "train" / f"{name}_x2_BSD400.yml").read_text(encoding="utf-8"))
        for name in ("lightSR", "SwinIR_light")
    )
    assert (ours.pop("name"), other.pop("name")) == ("lightSR_x2_BSD400", "SwinIR_light_x2_BSD400")
    assert ours.pop("network_g")["type"] == "MambaIR" and other.pop("network_g")["type"] == "SwinIR"
    assert ours == other


def test_figures_of_real_denoising() -> None:
    options = recipe("RealDN")
    stages = [(stage.first_iter, stage.total_batch, stage.gt_size) for stage in options.stages(2)]
    assert stages == [
        (0, 64, 128),
        (92_000, 40, 160),
        (156_000, 32, 192),
        (204_000, 16, 256),
        (240_000, 8, 320),
        (276_000, 8, 384),
    ]
    train = options.train
    assert train.total_iter == 300_000
    assert train.optim_g == {"type": "AdamW", "lr": 3e-4, "weight_decay": 1e-4, "betas": [0.9, 0.999]}
    assert train.scheduler["periods"] == [92_000, 208_000] and train.scheduler["eta_mins"] == [3e-4, 1e-6]
    assert (train.use_grad_clip, train.grad_clip_norm) == (True, 0.01)
    assert train.mixing_augs.model_dump() == {"mixup": True, "mixup_beta": 1.2, "use_identity": True}
    assert train.pixel_opt["type"] == "CharbonnierLoss" and train.pixel_opt["eps"] == 1e-6
    text = (RECIPES / "train" / "RealDN.yml").read_text(encoding="utf-8")
    assert "the paper says Charbonnier, the published option file L1" in text


def test_figures_of_the_adversarial_stage() -> None:
    options = recipe("RealSR_x4_gan")
    train = options.train
    weights = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
    assert train.perceptual_opt["layer_weights"] == weights and train.perceptual_opt["perceptual_weight"] == 1.0
    assert (train.gan_opt["gan_type"], train.gan_opt["loss_weight"]) == ("vanilla", 0.1)
    assert options.network_d["num_feat"] == 64
    assert (options.l1_gt_usm, options.percep_gt_usm, options.gan_gt_usm) == (True, True, False)
    assert train.optim_d == train.optim_g


def test_second_order_degradation_is_spelt_out_and_equals_the_defaults() -> None:
    first, second = recipe("RealSR_x4_mse"), recipe("RealSR_x4_gan")
    assert first.degradation_options() == second.degradation_options()
    assert first.datasets["train"].kernel_options() == second.datasets["train"].kernel_options()
    bare = recipe("SR_x2")
    assert bare.datasets["train"].kernel_options() == first.datasets["train"].kernel_options()
    assert bare.degradation_options() == {**first.degradation_options(), "gt_size": None}


def test_figures_of_the_second_order_degradation() -> None:
    options = recipe("RealSR_x4_gan")
    ranges = {"betag_range": [0.5, 4], "betap_range": [1, 2], "blur_kernel_size": 21, "sinc_prob": 0.1}
    kinds = {"iso": 0.45, "aniso": 0.25, "generalized_iso": 0.12, "generalized_aniso": 0.03}
    kinds |= {"plateau_iso": 0.12, "plateau_aniso": 0.03}
    ranges |= {"kernel_list": list(kinds), "kernel_prob": list(kinds.values())}
    second = {f"{key}2": value for key, value in ranges.items()}
    expected = {**ranges, **second, "blur_sigma": [0.2, 3], "blur_sigma2": [0.2, 1.5], "final_sinc_prob": 0.8}
    assert options.datasets["train"].kernel_options() == expected
    assert options.degradation_options() == {
        "resize_prob": [0.2, 0.7, 0.1],
        "resize_range": [0.15, 1.5],
        "gaussian_noise_prob": 0.5,
        "noise_range": [1, 30],
        "poisson_scale_range": [0.05, 3],
        "gray_noise_prob": 0.4,
        "jpeg_range": [30, 95],
        "second_blur_prob": 0.8,
        "resize_prob2": [0.3, 0.4, 0.3],
        "resize_range2": [0.3, 1.2],
        "gaussian_noise_prob2": 0.5,
        "noise_range2": [1, 25],
        "poisson_scale_range2": [0.05, 2.5],
        "gray_noise_prob2": 0.4,
        "jpeg_range2": [30, 95],
        "gt_size": 256,
        "queue_size": 180,
        "lq_usm": True,
        "l1_gt_usm": True,
        "percep_gt_usm": True,
        "gan_gt_usm": False,
        "high_order_degradation": True,
    }


@pytest.mark.parametrize("path", [*TRAIN_RECIPES, *TEST_RECIPES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_metrics_follow_the_protocol(path: Path) -> None:
    options = (parse_train_options if path.parent.name == "train" else parse_test_options)(path)
    for name, metric in options.val.metrics.items():
        assert metric["type"] == f"calculate_{name}"
        assert metric["test_y_channel"] == (options.scale > 1)
        assert metric["crop_border"] == (options.scale if options.scale > 1 else 0)


def test_benchmarks_of_restoration() -> None:
    for name, benchmarks, color in (
        *((f"ColorDN_{sigma}", ["CBSD68", "Kodak24", "McMaster", "Urban100"], "color") for sigma in (15, 25, 50)),
        *((f"GrayDN_{sigma}", ["Set12", "BSD68", "Urban100"], "gray") for sigma in (15, 25, 50)),
        *((f"CAR_q{quality}", ["classic5", "LIVE1"], "gray") for quality in (10, 20, 30, 40)),
        *((f"colorCAR_q{quality}", ["LIVE1"], "color") for quality in (10, 20, 30, 40)),
        *((f"v2_ColorDN_{sigma}", ["CBSD68", "Kodak24", "McMaster", "Urban100"], "color") for sigma in (15, 25, 50)),
        *((f"v2_CAR_q{quality}", ["classic5", "LIVE1"], "gray") for quality in (10, 30, 40)),
        ("RealDN", ["SIDD"], "color"),
    ):
        options = parse_test_options(RECIPES / "test" / f"{name}.yml")
        sets = options.evaluation_datasets()
        assert list(sets) == benchmarks
        # LIVE1's colour images are published by MATLAB's Y.
        modes = {name: "y" if (name, color) == ("LIVE1", "gray") else color for name in benchmarks}
        assert {name: _mode(section) for name, section in sets.items()} == modes
        channels = options.network_g.get("in_chans", options.network_g.get("inp_channels"))
        assert channels == (1 if color == "gray" else 3)


@pytest.mark.parametrize(
    "path", [path for path in TEST_RECIPES if path.stem != "quickstart_shipped"], ids=lambda path: path.stem
)
def test_test_recipes_load_and_match_their_training(path: Path) -> None:
    options = parse_test_options(path)
    assert options.source.warnings == () and options.name == path.stem
    trained = recipe("RealSR_x4_gan" if path.stem == "RealSR_x4" else path.stem)
    assert options.path.param_key_g == ("params_ema" if trained.train.ema_decay else "params")
    network = {key: value for key, value in trained.network_g.items() if key != "use_checkpoint"}
    assert options.network_g == network and options.scale == trained.scale
    weights = f"experiments/{trained.name}/models/net_g_{trained.train.total_iter}.pth"
    assert options.path.pretrain_network_g.as_posix() == weights
    crops = {metric["crop_border"] for metric in options.val.metrics.values()}
    assert crops == (set() if path.stem == "RealSR_x4" else {0 if options.scale == 1 else options.scale})


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_published_number_of_parameters(name: str) -> None:
    if name.startswith("SwinIR"):
        pytest.importorskip("spandrel")
    network = build_network(parse_test_options(RECIPES / "test" / f"{name}.yml").network_g)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]


def test_the_quickstart_network_builds() -> None:
    assert build_network(recipe("quickstart").network_g).scale == 2


def test_the_quickstart_tests_two_networks_on_the_same_photos() -> None:
    trained, shipped = (
        parse_test_options(RECIPES / "test" / f"{name}.yml") for name in ("quickstart", "quickstart_shipped")
    )
    assert shipped.datasets == trained.datasets and shipped.val == trained.val and shipped.source.warnings == ()
    assert shipped.network_g == recipe("lightSR_x2_BSD400").network_g
    assert build_generator(shipped).scale == 2, "its weights come with the package"


def test_benchmarks_of_super_resolution() -> None:
    for scale in (2, 3, 4):
        for kind in ("SR", "lightSR", "v2_lightSR", "v2_SRSmall", "v2_SR", "v2_SRLarge"):
            sets = parse_test_options(RECIPES / "test" / f"{kind}_x{scale}.yml").evaluation_datasets()
            assert list(sets) == ["Set5", "Set14", "B100", "Urban100", "Manga109"]
            templates = {name: section.filename_tmpl for name, section in sets.items()}
            assert templates.pop("Manga109") == f"{{}}_LRBI_x{scale}"
            assert set(templates.values()) == {f"{{}}x{scale}"}


def test_a_benchmark_can_be_left_out() -> None:
    path = RECIPES / "test" / "SR_x2.yml"
    options = parse_test_options(path, force_yml=["datasets:test_2=~", "datasets:test_5=~"])
    assert list(options.evaluation_datasets()) == ["Set5", "B100", "Urban100"]
    with pytest.raises(UserError, match="section 'train' is missing"):
        parse_train_options(RECIPES / "train" / "SR_x2.yml", force_yml=["datasets:train=~"])
    with pytest.raises(UserError, match="the file has no 'test_9'; it has test_1, test_2"):
        parse_test_options(path, force_yml=["datasets:test_9=~"])
    with pytest.raises(UserError, match="no data set to test on"):
        parse_test_options(path, force_yml=["datasets={test_1: ~}"])
