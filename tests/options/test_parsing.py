from pathlib import Path

import pytest
import yaml

from mambair.errors import UserError
from mambair.options import TrainOptions, dump_options, parse_test_options, parse_train_options

TRAIN = """\
name: run
scale: 2
num_gpu: 8
datasets:
  train:
    type: PairedImageDataset
    dataroot_gt: ../data
    gt_size: 128
    batch_size_per_gpu: 4
  val:
    type: PairedImageDataset
    dataroot_gt: ~/val
network_g: {type: MambaIR, upscale: 2}
path:
  pretrain_network_g: ~/weights.pth
train:
  total_iter: 100
  optim_g: {type: Adam, lr: 1e-4}
  pixel_opt: {type: L1Loss}
val:
  val_freq: 50
"""


@pytest.fixture
def option_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yml"
    path.write_text(TRAIN)
    return path


def mistakes(path: Path, *replacements: tuple[str, str], force_yml: tuple[str, ...] = ()) -> str:
    """The error message after replacing text in the option file."""
    text = path.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        parse_train_options(path, force_yml=force_yml)
    return str(caught.value)


def test_a_good_file(option_file: Path) -> None:
    options = parse_train_options(option_file)
    assert options.train.optim_g == {"type": "Adam", "lr": 1e-4}
    assert options.datasets["train"].dataroot_gt == [Path("../data")]
    assert options.path.pretrain_network_g == Path("~/weights.pth").expanduser()
    assert list(options.evaluation_datasets()) == ["val"]
    assert options.where("train.optim_g") == f"{option_file}:18: train.optim_g"
    assert options.where("train.optim_d") == f"{option_file}:16: train.optim_d"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  total_iter", "  total_iters", ":17: train.total_iters: unknown key; did you mean 'total_iter'?"),
        ("  total_iter: 100", "  warmup_iter: 1", ":16: train: key 'total_iter' is missing"),
        ("100", "abc", ":17: train.total_iter: expected a whole number, got 'abc'"),
        ("100", "10.5", ":17: train.total_iter: expected a whole number, got 10.5"),
        ("100", ".nan", ":17: train.total_iter: expected a whole number, got nan"),
        ("100", "true", ":17: train.total_iter: expected a whole number, got True"),
        ("100", "0", ":17: train.total_iter: expected a number of at least 1, got 0"),
        ("100", "[1]", ":17: train.total_iter: expected a whole number, got [1]"),
        ("100", "1e300", "expected a whole number"),
        ("scale: 2", "scale: 3", ":13: network_g.upscale: is 2 but scale is 3; make them equal"),
        ("name: run", "name: ../run", ":1: name: expected a plain folder name"),
        ("name: run", "name: ..", ":1: name: expected a plain folder name"),
        ("name: run", "name: a/b", ":1: name: expected a plain folder name"),
        ("name: run", "name: 7", ":1: name: expected text, got 7; put it in quotes"),
        ("gt_size: 128", "gt_size: 127", ":8: datasets.train.gt_size: 127 is no multiple of scale 2"),
        ("  train:\n    type", "  trian:\n    type", ":5: datasets.trian: unknown key"),
        ("  val:", "  train_2:", "datasets.train_2: unknown key"),
        ("type: PairedImageDataset", "typ: x", ":6: datasets.train.typ: unknown key; did you mean 'type'?"),
        ("    gt_size", "    use_hflip: 'yes'\n    gt_size", ":8: datasets.train.use_hflip: expected true or false"),
        ("    gt_size", "    io_backend: {type: lmbd}\n    gt_size", "got 'lmbd'; did you mean 'lmdb'?"),
        ("    gt_size", "    io_backend: disk\n    gt_size", "expected a block of keys, got 'disk'"),
        ("    gt_size", "    filename_tmpl: ../{}\n    gt_size", "filename_tmpl: expected a file name with one '{}'"),
        ("    gt_size", "    filename_tmpl: '{0}'\n    gt_size", "filename_tmpl: expected a file name with one '{}'"),
        ("    gt_size", "    task: denoising_color\n    gt_size", "needs 'noise'"),
        ("    gt_size", "    gt_sizes: [64, 96]\n    gt_size", "progressive training needs one entry per stage"),
        ("    gt_size", "    blur_sigma: [3, 1]\n    gt_size", "expected [low, high] with low <= high"),
        ("scale: 2", "resize_range: [0, 1]\nscale: 2", ":2: resize_range: expected a range of numbers above 0"),
        ("scale: 2", "jpeg_range2: [30, 101]\nscale: 2", ":2: jpeg_range2: expected a range of JPEG qualities"),
        ("scale: 2", "noise_range: [-1, 3]\nscale: 2", ":2: noise_range: expected a range of numbers that are not"),
        ("    gt_size", "    kernel_prob: [0.5, 0.5]\n    gt_size", "has 2 probabilities for the 6 kinds"),
        ("../data", "[a, b]\n    dataroot_lq: [c]", "datasets.train.dataroot_lq: has 1 roots but dataroot_gt has 2"),
        ("name: run", "name: run\ntotal_iter: 3", ":2: total_iter: unknown key; it belongs into 'train'"),
        ("{type: L1Loss}", "{loss_weight: 1}", ":19: train.pixel_opt: key 'type' is missing"),
        ("{type: L1Loss}", "L1Loss", ":19: train.pixel_opt: expected a block with 'type'"),
        ("pixel_opt", "# pixel_opt", ":16: train: no loss; give pixel_opt"),
        ("pixel_opt", "gan_opt", "train.gan_opt: needs train.optim_d"),
        ("    batch_size_per_gpu: 4\n", "", ":5: datasets.train: key 'batch_size_per_gpu' is missing"),
        ("num_gpu: 8", "num_gpu: all", ":3: num_gpu: expected a whole number, got 'all' (or 'auto')"),
        ("num_gpu: 8", "num_gpu: -1", ":3: num_gpu: expected a number of GPUs or 'auto', got -1"),
        ("val_freq: 50", "tile: 3", "val.tile: expected a tile size of at least 16 pixels, got 3"),
        ("val_freq: 50", "tile: all", "val.tile: expected 'published', 'none' or a tile size"),
        ("scale: 2", "resize_prob: [0.5, 0.6, 0.1]\nscale: 2", ":2: resize_prob: expected probabilities that sum"),
        ("network_g: {type: MambaIR, upscale: 2}", "", "key 'network_g' is missing"),
    ],
)
def test_each_mistake_names_file_line_key_and_remedy(option_file: Path, old: str, new: str, expected: str) -> None:
    text = mistakes(option_file, (old, new))
    assert text.startswith(str(option_file))
    assert expected in text


def test_all_mistakes_are_listed_in_the_order_of_the_file(option_file: Path) -> None:
    text = mistakes(option_file, ("val_freq", "val_frq"), ("gt_size", "gt_sise"), ("total_iter", "iterations"))
    assert [line.split(": ")[1] for line in text.splitlines()] == [
        "datasets.train.gt_sise",
        "train",
        "train.iterations",
        "val.val_frq",
    ]


def test_no_validation_set(option_file: Path) -> None:
    text = option_file.read_text()
    start, end = text.index("  val:\n"), text.index("network_g")
    option_file.write_text(text[:start] + text[end:])
    with pytest.raises(UserError, match=r"val\.val_freq: there is no data set .* make it ~"):
        parse_train_options(option_file)


def test_numbers_of_every_spelling(option_file: Path) -> None:
    forced = ["train:total_iter=5e3", "val:val_freq=!!float 5e3", "logger:print_freq='5e1'", "num_gpu=2.0"]
    options = parse_train_options(option_file, force_yml=forced)
    assert (options.train.total_iter, options.val.val_freq, options.logger.print_freq) == (5000, 5000, 50)
    assert options.num_gpu == 2 and type(options.train.total_iter) is int


def test_nothing_means_left_out(option_file: Path) -> None:
    forced = ["path=~", "datasets:train:filename_tmpl=~", "train:ema_decay=~", "val:metrics=~", "logger:wandb=~"]
    options = parse_train_options(option_file, force_yml=forced)
    assert options.path.pretrain_network_g is None and options.datasets["train"].filename_tmpl == "{}"
    assert options.val.metrics == {}
    assert parse_train_options(option_file, force_yml=["val=~"]).val is None


def test_force_yml_sets_components_and_new_blocks(option_file: Path) -> None:
    forced = ["train:optim_g:lr=2e-4", "train:mixing_augs:mixup=true", "network_g:depths=[2, 2]", "path:root=a=b"]
    options = parse_train_options(option_file, force_yml=forced)
    assert options.train.optim_g == {"type": "Adam", "lr": 2e-4}
    assert options.train.mixing_augs.mixup and options.network_g["depths"] == [2, 2]
    assert options.path.root == Path("a=b")
    assert options.where("network_g.depths") == "--force_yml network_g:depths=[2, 2]: network_g.depths"


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("train:total_iterr=3", "--force_yml train:total_iterr=3: train.total_iterr: unknown key; did you mean"),
        ("train:new:key=3", "--force_yml train:new:key=3: train.new: unknown key"),
        ("train:total_iter=abc", "--force_yml train:total_iter=abc: train.total_iter: expected a whole number"),
        ("train:total_iter", "expected KEY:SUBKEY=VALUE"),
        ("train::total_iter=3", "expected KEY:SUBKEY=VALUE"),
        ("=3", "expected KEY:SUBKEY=VALUE"),
        ("name:sub=3", "'name' is 'run', not a block of keys"),
        ("train:total_iter=[1", "not a valid option file"),
        ("train:total_iter=!!python/name:os.system", "could not determine a constructor"),
    ],
)
def test_force_yml_mistakes_name_the_argument(option_file: Path, argument: str, expected: str) -> None:
    text = mistakes(option_file, force_yml=(argument,))
    assert f"--force_yml {argument}" in text and expected in text


def test_debug_happens_within_the_first_iterations_and_arguments_win(option_file: Path) -> None:
    options = parse_train_options(option_file, debug=True, force_yml=["logger:print_freq=3"])
    assert options.name == "debug_run"
    assert (options.logger.print_freq, options.logger.save_checkpoint_freq, options.val.val_freq) == (3, 8, 8)
    without_validation = parse_train_options(option_file, debug=True, force_yml=["val=~"])
    assert without_validation.val is None


def test_dump_reads_back_to_the_same_options(option_file: Path, tmp_path: Path) -> None:
    options = parse_train_options(option_file, force_yml=["datasets:train:sinc_prob=0.2"])
    dumped = tmp_path / "effective.yml"
    dumped.write_text(dump_options(options))
    assert parse_train_options(dumped).model_dump() == options.model_dump()
    data = yaml.safe_load(dumped.read_text())
    assert data["logger"]["save_checkpoint_freq"] == 5000  # defaults are shown
    assert "resize_prob" not in data and "sinc_prob" not in data["datasets"]["val"]
    assert data["datasets"]["train"]["sinc_prob"] == 0.2


def test_options_cannot_be_changed(option_file: Path) -> None:
    options = parse_train_options(option_file)
    with pytest.raises(ValueError, match="frozen"):
        options.train.total_iter = 3


def test_a_training_file_is_no_test_file(option_file: Path) -> None:
    with pytest.raises(UserError, match=r"run\.yml:16: train: this is a training file"):
        parse_test_options(option_file)


def test_a_test_file_needs_a_data_set(tmp_path: Path) -> None:
    path = tmp_path / "test.yml"
    path.write_text("name: t\nscale: 2\nnetwork_g: {type: MambaIR}\ndatasets: {}\n")
    with pytest.raises(UserError, match=r"test\.yml:4: datasets: no data set to test on; add test_1"):
        parse_test_options(path)
    text = "name: t\nnetwork_g: {type: M}\ndatasets:\n  test_1: {type: A, name: x}\n  test_2: {type: A, name: x}\n"
    path.write_text(text)
    with pytest.raises(UserError, match="two data sets are called 'x'"):
        parse_test_options(path)


def test_total_batch_does_not_follow_the_number_of_processes(option_file: Path) -> None:
    options = parse_train_options(option_file)
    for world_size in (1, 2, 8, 16):
        (stage,) = options.stages(world_size)
        assert (stage.first_iter, stage.total_batch, stage.gt_size) == (0, 32, 128)
    automatic = parse_train_options(option_file, force_yml=["num_gpu=auto"])
    assert automatic.stages(3)[0].total_batch == 12
    on_cpu = parse_train_options(option_file, force_yml=["num_gpu=0"])
    assert on_cpu.stages(2)[0].total_batch == 4


def test_progressive_stages(option_file: Path) -> None:
    lists = ["mini_batch_sizes=[8, 4, 1]", "iters=[10, 20, 5]", "gt_sizes=[64, 96, 128]"]
    options = parse_train_options(option_file, force_yml=[f"datasets:train:{entry}" for entry in lists])
    stages = [(stage.first_iter, stage.total_batch, stage.gt_size) for stage in options.stages(2)]
    assert stages == [(0, 64, 64), (10, 32, 96), (30, 8, 128)]


def test_every_field_has_a_docstring() -> None:
    def sections(schema: type) -> list[type]:
        found = [schema]
        for field in schema.model_fields.values():
            for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(candidate, "model_fields"):
                    found += sections(candidate)
        return found

    schemas = sections(TrainOptions)
    assert len(schemas) >= 9
    missing = [f"{s.__name__}.{n}" for s in schemas for n, field in s.model_fields.items() if not field.description]
    assert not missing


def test_half_a_character_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "surrogate.yml"
    path.write_text('jpeg_range: ["\\ud800"]\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"surrogate\.yml: '\\ud800' is half of a character"):
        parse_train_options(path)
