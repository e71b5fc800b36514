"""A commented training file for somebody's own folders: what `mambair options new` and `mambair finetune` write."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MILESTONES = (0.5, 0.8, 0.9, 0.95)
"""Where the learning rate is halved, in parts of the whole run: those of the paper's recipes."""


@dataclass(frozen=True)
class Pairs:
    """How low-quality images come about: keys of a data set's section, without its folders."""

    keys: Mapping[str, Any]
    explanation: str
    validation: Mapping[str, Any] | None = None
    """The keys of a validation set, where it needs others: pairs drawn at random are for training only."""


@dataclass(frozen=True)
class Images:
    """Where images lie."""

    folders: tuple[Path, ...]
    degraded: tuple[Path, ...] = ()
    """Partners on disk; none where they are made."""
    lists: tuple[Path, ...] = ()
    """A list of the images to use for each folder; all of them where there is none."""

    def keys(self) -> dict[str, Any]:
        """As keys of a data set's section."""
        found = {"dataroot_gt": self.folders, "dataroot_lq": self.degraded, "meta_info_file": self.lists}
        return {key: paths(value) for key, value in found.items() if value}


@dataclass(frozen=True)
class Recipe:
    """All that a written training file says."""

    title: str
    name: str
    scale: int
    pairs: Pairs
    training: Images
    validation: Images | None
    network: Mapping[str, Any]
    gt_size: int
    batch: int
    total_iter: int
    learning_rate: float
    val_freq: int
    model_type: str = "MambaIRModel"
    loss: Mapping[str, Any] = field(default_factory=lambda: {"type": "L1Loss", "loss_weight": 1.0})
    weights: Path | str | None = None
    ema_decay: float = 0.999
    patience: int | None = None
    workers: int = 4
    root: Path | None = None
    head: Mapping[str, Any] = field(default_factory=dict)
    """Further keys at the top level."""
    num_gpu: int | str = "auto"
    seed: int = 0
    plugins: tuple[str, ...] = ()
    """What registers a network that is not the package's."""


def paths(values: tuple[Path, ...]) -> str | list[str]:
    """One path, or a list of several, as a file writes them."""
    texts = [value.as_posix() for value in values]
    return texts[0] if len(texts) == 1 else texts


def block(keys: Mapping[str, Any], indent: int) -> str:
    """Keys as lines of YAML, short lists on one line."""
    text = yaml.dump(dict(keys), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return "".join(f"{' ' * indent}{line}\n" for line in text.splitlines())


class _Dumper(yaml.SafeDumper):
    """YAML in the style of the recipes: `depths: [6, 6]`, blocks below their keys."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)
_Dumper.add_representer(
    tuple, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def recipe_text(recipe: Recipe, first_line: str, file: Path) -> str:
    """The file, from its first line, which names the schema."""
    parts = [_head(recipe, first_line, file), _datasets(recipe), _network(recipe), _train(recipe), _rest(recipe)]
    return "\n".join(parts)


def _head(recipe: Recipe, first_line: str, file: Path) -> str:
    extra = _plugins(recipe) + (block(recipe.head, 0) if recipe.head else "")
    return f"""{first_line}
# {recipe.title}
# Check:  mambair options check {file.as_posix()}
#         mambair data check -opt {file.as_posix()}
# Train:  mambair train -opt {file.as_posix()}
#         the same line with --auto_resume goes on after an interruption
{block({"name": recipe.name}, 0)}model_type: {recipe.model_type}
scale: {recipe.scale}
num_gpu: {recipe.num_gpu} # auto takes the GPUs there are, 0 the CPU
manual_seed: {recipe.seed}
{extra}"""


def _plugins(recipe: Recipe) -> str:
    return block({"plugins": recipe.plugins}, 0) if recipe.plugins else ""


def _datasets(recipe: Recipe) -> str:
    patches = f"{recipe.gt_size} # side of the random patches in pixels of the clean images"
    text = f"""datasets:
  train:
    # {recipe.pairs.explanation}
{block({**recipe.pairs.keys, **recipe.training.keys()}, 4)}
    gt_size: {patches}
    use_hflip: true
    use_rot: true

    num_worker_per_gpu: {recipe.workers}
    batch_size_per_gpu: {recipe.batch}
"""
    judged = recipe.pairs.keys if recipe.pairs.validation is None else recipe.pairs.validation
    if recipe.validation is None:
        return f"""{text}
  # Images that are not trained on, to see how good the network becomes; without them no best checkpoint is known.
  # val:
  #   type: {judged["type"]}
  #   dataroot_gt: FOLDER
"""
    keys = {"name": "held_out", **judged, **recipe.validation.keys()}
    return f"""{text}
  val:
{block(keys, 4)}"""


def _network(recipe: Recipe) -> str:
    starts = recipe.weights.as_posix() if isinstance(recipe.weights, Path) else recipe.weights
    path: dict[str, Any] = {"pretrain_network_g": starts}
    if recipe.root is not None:
        path["root"] = recipe.root.as_posix()
    text = block(path, 2).replace("null", "~ # weights to start from: a file, or a name of `mambair weights list`")
    return f"""network_g:
{block(recipe.network, 2)}
path:
{text}"""


def _train(recipe: Recipe) -> str:
    # Good weights to start from are worth remembering; random ones are not.
    forgets = "" if recipe.weights else "  ema_warmup: true # the average forgets its start\n"
    milestones = sorted({max(1, round(recipe.total_iter * part)) for part in MILESTONES})
    return f"""train:
  total_iter: {recipe.total_iter}
  ema_decay: {recipe.ema_decay} # the average of the weights is what is validated and kept
{forgets}  optim_g: {{type: Adam, lr: {recipe.learning_rate:.1e}, betas: [0.9, 0.99]}}
  scheduler: {{type: MultiStepLR, milestones: {milestones}, gamma: 0.5}}
  pixel_opt:
{block(recipe.loss, 4)}  amp: auto # bf16 on GPUs that have it, fp16 on older ones, none on the CPU
"""


def _rest(recipe: Recipe) -> str:
    validated = recipe.validation is not None
    freq = f"  val_freq: {recipe.val_freq}\n" if validated else f"  # val_freq: {recipe.val_freq}\n"
    patience = ""
    if recipe.patience is not None:
        patience = f"  patience: {recipe.patience} # validations without a better one, after which training ends\n"
    return f"""val:
{freq}{patience}  metrics: # the papers' convention; the first one decides which checkpoint is the best
{_metrics(recipe)}
logger:
  print_freq: {max(1, min(100, recipe.total_iter // 20))}
  save_checkpoint_freq: {recipe.val_freq}
  keep_checkpoints: 2 # the newest ones and the best; ~ keeps all
"""


def _metrics(recipe: Recipe) -> str:
    """PSNR and SSIM: on the Y channel without a border for super-resolution, else of all pixels."""
    is_color = recipe.network.get("in_chans", 3) == 3
    border = recipe.scale if recipe.scale > 1 else 0
    luma = "true" if recipe.scale > 1 and is_color else "false"
    return "".join(
        f"    {name}: {{type: calculate_{name}, crop_border: {border}, test_y_channel: {luma}}}\n"
        for name in ("psnr", "ssim")
    )


def test_text(recipe: Recipe, first_line: str, file: Path) -> str:
    """An option file that tests the weights that the recipe starts from on its validation images."""
    assert recipe.validation is not None and recipe.weights is not None
    judged = recipe.pairs.keys if recipe.pairs.validation is None else recipe.pairs.validation
    return f"""{first_line}
# Test:  mambair test -opt {file.as_posix()} --weights FILE
{block({"name": f"{recipe.name}_test"}, 0)}scale: {recipe.scale}
num_gpu: {recipe.num_gpu}
{_plugins(recipe)}
datasets:
  test_1:
{block({"name": "held_out", **judged, **recipe.validation.keys()}, 4)}
{_network(recipe)}
val:
  save_img: true
  metrics:
{_metrics(recipe)}"""
