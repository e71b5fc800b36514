"""Option files in the style people already have load unchanged; their dead keys are named in warnings."""

from pathlib import Path

import pytest

from mambair.archs import build_network
from mambair.errors import UserError
from mambair.models import restoration_model  # noqa: F401 (registers the models)
from mambair.options import parse_test_options, parse_train_options
from mambair.registry import MODELS

PUBLISHED = Path(__file__).parent / "published"
TRAIN_FILES = sorted(path for path in PUBLISHED.glob("*.yml") if not path.name.startswith("test_"))


def test_there_is_one_of_each_task() -> None:
    assert [path.stem for path in TRAIN_FILES] == [
        "classic_sr_x2",
        "color_denoising_25",
        "jpeg_q40",
        "light_sr_x3",
        "real_denoising",
        "real_sr_x4_gan",
        "v2_classic_sr_x2",
        "v2_jpeg_q40",
        "v2_light_sr_x2",
    ]


@pytest.mark.parametrize("path", TRAIN_FILES, ids=lambda path: path.stem)
def test_published_training_files_load(path: Path) -> None:
    options = parse_train_options(path)
    assert all(type(stage.total_batch) is int for stage in options.stages(1))
    small = {"depths": [1], "num_heads": [1], "num_blocks": [1] * 4}
    network = build_network(
        {**options.network_g, **{key: small[key] for key in small.keys() & options.network_g.keys()}}
    )
    assert options.model_type in MODELS
    assert network.scale == options.scale


def test_files_of_version_2_keep_their_values() -> None:
    assert parse_train_options(PUBLISHED / "v2_classic_sr_x2.yml").train.optim_g["lr"] == 1e-3
    light = parse_train_options(PUBLISHED / "v2_light_sr_x2.yml")
    assert light.source.warnings == () and light.network_g["type"] == "MambaIRv2Light"
    assert [stage.total_batch for stage in light.stages(1)] == [32]


def test_floats_become_whole_numbers() -> None:
    options = parse_train_options(PUBLISHED / "light_sr_x3.yml")
    numbers = (options.train.total_iter, options.val.val_freq, options.datasets["train"].gt_size)
    assert numbers == (500_000, 5000, 192)
    assert all(type(number) is int for number in numbers)
    assert options.train.scheduler["milestones"] == [250_000, 400_000, 450_000, 475_000]


def test_ignored_keys_are_named_with_a_reason() -> None:
    options = parse_train_options(PUBLISHED / "real_denoising.yml")
    keys = {warning.split("'")[1] for warning in options.source.warnings}
    assert keys == {"val.window_size", "val.rgb2bgr", "val.max_minibatch"}
    assert all(warning.startswith(str(PUBLISHED / "real_denoising.yml")) for warning in options.source.warnings)
    assert options.train.mixing_augs.mixup_beta == 1.2 and options.train.mixing_augs.use_identity
    assert [stage.total_batch for stage in options.stages(1)] == [64, 40, 32, 16, 8, 8]


def test_keys_that_are_off_are_ignored_silently() -> None:
    assert parse_train_options(PUBLISHED / "classic_sr_x2.yml").source.warnings == ()
    keys = {warning.split("'")[1] for warning in parse_train_options(PUBLISHED / "light_sr_x3.yml").source.warnings}
    assert keys == {"datasets.train.prefetch_mode", "datasets.train.num_prefetch_queue"}


def test_renamed_keys_keep_their_meaning() -> None:
    assert parse_test_options(PUBLISHED / "test_classic_sr_x2.yml").val.self_ensemble
    dataset = parse_train_options(PUBLISHED / "real_sr_x4_gan.yml").datasets["train"]
    assert dataset.meta_info_file == [Path("datasets/DF2K/meta_info/meta_info_DF2Kmultiscale+OST_sub.txt")]
    assert dataset.kernel_options()["final_sinc_prob"] == 0.8


def test_renamed_keys_keep_their_line(tmp_path: Path) -> None:
    path = tmp_path / "t.yml"
    text = (PUBLISHED / "test_classic_sr_x2.yml").read_text()
    path.write_text(text.replace("selfensemble_testing: True", "selfensemble_testing: 3"))
    line = text.splitlines().index("  selfensemble_testing: True") + 1
    with pytest.raises(UserError, match=rf"t\.yml:{line}: val\.self_ensemble: expected true or false, got 3"):
        parse_test_options(path)
    path.write_text(text.replace("  save_img", "  self_ensemble: false\n  save_img"))
    with pytest.raises(UserError, match="is another name of 'self_ensemble'"):
        parse_test_options(path)


def test_published_test_file_reads_its_networks_and_sets() -> None:
    options = parse_test_options(PUBLISHED / "test_classic_sr_x2.yml")
    assert list(options.evaluation_datasets()) == ["Set5", "Manga109"]
    assert options.evaluation_datasets()["Manga109"].filename_tmpl == "{}_LRBI_x2"
    assert options.val.tile == "published"
    assert list(options.val.metrics) == ["psnr", "ssim"]


def test_the_one_sharpening_key_of_the_first_stage(tmp_path: Path) -> None:
    path = tmp_path / "mse.yml"
    lines = (PUBLISHED / "real_sr_x4_gan.yml").read_text().splitlines()
    kept = [line for line in lines if "_gt_usm" not in line]
    path.write_text("\n".join(["gt_usm: false", *kept]))
    options = parse_train_options(path)
    assert not options.l1_gt_usm and options.where("l1_gt_usm") == f"{path}:1: l1_gt_usm"
