"""Data sets of plug-ins: how their constructors are called, and how their samples are drawn.

A class that is registered in DATASETS is built with the keys of its section of the option file that it has parameters
for. It gives samples {"lq": (C, h, w), "gt": (C, s*h, s*w)}, float32 in [0, 1], by `__getitem__(index)`, or for
training by `sample(index, rng)`, whose randomness comes from `rng` alone. BasicSR's, built with a dict `opt`, do so.
"""

import inspect
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import torch

from mambair.errors import UserError
from mambair.options.dataset_schema import DatasetOptions
from mambair.registry import check_types, did_you_mean, keyword_parameters, takes_any_keyword, type_hints
from mambair.runtime.foreign_code import foreign_code

LOADER_KEYS = {
    *("type", "name", "batch_size_per_gpu", "num_worker_per_gpu", "use_shuffle", "dataset_enlarge_ratio", "pin_memory"),
    *("max_bad_samples", "mini_batch_sizes", "iters", "gt_sizes", "augmentations", "io_backend"),
}
"""What a section says to others than the data set."""
LARGEST_SEED = 2**32


def build_plugin_dataset(
    entry: Callable[..., Any], section: DatasetOptions, program: Mapping[str, Any], where: Callable[[str | None], str]
) -> "PluginDataset":
    """The data set of a plug-in's class (or function).

    Args:
        entry: what is registered.
        section: its section of the option file.
        program: what the class may ask for beside the section's keys: scale, phase, training.
        where: names file, line and key for errors.

    Raises:
        UserError: a key that the class does not know or lacks, or something that is no data set.
    """
    if list(inspect.signature(entry).parameters) == ["opt"]:  # BasicSR's
        keywords: dict[str, Any] = {"opt": {**_plain(section), **program}}
    else:
        keywords = _keywords(entry, section, program, where)
    with foreign_code(f"{where(None)}: {section.type}"):
        dataset = entry(**keywords)
    plugin_dataset = PluginDataset(dataset, section.type, where(None), section.is_progressive)
    try_sample(plugin_dataset, program["scale"], training=program["training"])
    return plugin_dataset


def _keywords(
    entry: Callable[..., Any], section: DatasetOptions, program: Mapping[str, Any], where: Callable[[str | None], str]
) -> dict[str, Any]:
    parameters = keyword_parameters(entry)
    hints = type_hints(entry)
    own = section.model_extra or {}
    open_to_all = takes_any_keyword(entry)
    keywords: dict[str, Any] = {}
    for key in type(section).model_fields.keys() - LOADER_KEYS:
        value = getattr(section, key)
        is_set = value != type(section).model_fields[key].get_default(call_default_factory=True)
        if key in parameters and (is_set or parameters[key].default is inspect.Parameter.empty):
            keywords[key] = _as_wanted(value, hints.get(key))
        elif is_set and not open_to_all:
            raise UserError(f"{where(key)}: {section.type} has no such keyword{did_you_mean(key, parameters)}")
    for key, value in own.items():
        if key not in parameters and not open_to_all:
            raise UserError(f"{where(key)}: unknown key for {section.type}{did_you_mean(key, parameters)}")
        keywords[key] = value
    keywords |= {key: value for key, value in program.items() if key in parameters}
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and keywords.get(key) is None:
            raise UserError(f"{where(None)}: key '{key}' is missing; {section.type} needs it")
    return check_types(entry, keywords, where(None))


def _as_wanted(value: Any, hint: Any) -> Any:
    """A list of paths as one path where there is only one and no list is asked for."""
    if not (isinstance(value, list) and all(isinstance(each, Path) for each in value)):
        return value
    wants_list = (get_origin(hint) or hint) in (list, tuple) or "Sequence" in str(hint)
    wants_text = hint is None or str in (hint, *get_args(hint))
    if wants_list:
        return value
    paths = [str(path) for path in value] if wants_text else value
    return paths[0] if len(paths) == 1 else paths or None


def _plain(section: DatasetOptions) -> dict[str, Any]:
    """A section as BasicSR's data sets get it: plain values, one path where there is one."""
    values = section.model_dump(mode="json", exclude_none=True)
    for key, value in values.items():
        if isinstance(getattr(section, key, None), list) and len(value) == 1 and isinstance(value[0], str):
            values[key] = value[0]
        elif value == [] and key in ("dataroot_gt", "dataroot_lq", "meta_info_file"):
            values[key] = None
    return {key: value for key, value in values.items() if value is not None}


def try_sample(dataset: "PluginDataset", scale: int, *, training: bool) -> None:
    """Draw a first sample. Raises UserError where that fails, or where it is not a pair to train on."""
    what = f"{dataset.where}: {dataset.kind}"
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    with foreign_code(what):
        sample = dataset.sample(0, np.random.default_rng(0)) if training else dataset[0]
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    if "gt" not in sample:
        if training:
            raise UserError(f"{what} gives no 'gt', the ground truth to train on")
        return
    lq, gt = (tuple(sample[key].shape) for key in ("lq", "gt"))
    if gt[1:] != tuple(side * scale for side in lq[1:]):
        raise UserError(f"{what} gives 'lq' {lq} and 'gt' {gt}; at scale {scale} 'gt' must be {scale} times as large")


class PluginDataset:
    """A plug-in's data set as training and validation ask for it.

    Args:
        dataset: what the plug-in's class built.
        kind: the name it is registered under.
        where: its section, for errors.
        progressive: whether patches change during training; `sample` must then take `gt_size`.
    """

    def __init__(self, dataset: Any, kind: str, where: str, progressive: bool = False) -> None:
        self.dataset = dataset
        self.kind = kind
        self.where = where
        if not callable(getattr(dataset, "__len__", None)):
            raise UserError(f"{where}: {kind} has no __len__; data sets here have a length")
        self._sample = getattr(dataset, "sample", None)
        if self._sample is None and not callable(getattr(dataset, "__getitem__", None)):
            raise UserError(f"{where}: {kind} has neither __getitem__(index) nor sample(index, rng)")
        if progressive and (self._sample is None or "gt_size" not in inspect.signature(self._sample).parameters):
            raise UserError(f"{where}: patches that grow need {kind}.sample(index, rng, gt_size); or leave out 'iters'")
        if len(dataset) == 0:
            raise UserError(f"{where}: {kind} is empty")
        self.paths = [_name_of(path, index) for index, path in enumerate(_paths(dataset))]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not callable(getattr(self.dataset, "__getitem__", None)):
            raise UserError(f"{self.where}: {self.kind} has no __getitem__(index), which validation and tests need")
        return self._checked(self.dataset[index], index)

    def sample(self, index: int, rng: np.random.Generator, gt_size: int | None = None) -> dict[str, Any]:
        """Sample `index`. Where the data set draws by Python's, NumPy's and torch's global generators, `rng` seeds
        them, so that a sample depends on its number alone."""
        if self._sample is not None:
            own_patch = () if gt_size is None else (gt_size,)
            return self._checked(self._sample(index, rng, *own_patch), index)
        seed = int(rng.integers(LARGEST_SEED))
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return self._checked(self.dataset[index], index)

    def _checked(self, sample: Any, index: int) -> dict[str, Any]:
        """The sample with names of its files. Raises UserError where it is none."""
        if not isinstance(sample, Mapping) or not isinstance(sample.get("lq"), torch.Tensor):
            keys = ", ".join(map(str, sample)) if isinstance(sample, Mapping) else type(sample).__name__
            raise UserError(
                f"{self.where}: {self.kind} gives {keys}; a sample is a dict with the tensors 'lq' (C, h, w) and 'gt'"
            )
        for key in ("lq", "gt"):
            image = sample.get(key)
            if image is not None and (image.ndim != 3 or image.dtype != torch.float32):
                raise UserError(
                    f"{self.where}: {self.kind} gives '{key}' as {image.dtype} of shape {tuple(image.shape)}; "
                    "it must be float32 of shape (C, H, W), in [0, 1]"
                )
        named = dict(sample)
        named.setdefault("lq_path", self.paths[index % len(self.paths)])
        if "gt" in named:
            named.setdefault("gt_path", named["lq_path"])
        return named


def _paths(dataset: Any) -> list[Any]:
    """What the data set calls its images, or their numbers."""
    paths = getattr(dataset, "paths", None)
    return list(paths) if isinstance(paths, (list, tuple)) and len(paths) == len(dataset) else [None] * len(dataset)


def _name_of(path: Any, index: int) -> str:
    if isinstance(path, Mapping):  # BasicSR's
        path = path.get("gt_path") or path.get("lq_path")
    return f"{index:05d}" if path is None else str(path)
