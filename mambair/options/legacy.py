"""Keys of BasicSR-style files that are spelt differently here or only drive BasicSR's internals.

A `*` stands for any one name, so that `datasets.*.phase` covers every data set.
"""

from collections.abc import Iterator
from typing import Any

from mambair.errors import UserError
from mambair.options.yaml_reader import KeyPath

RENAMED: dict[str, str] = {
    "val.selfensemble_testing": "self_ensemble",
    "datasets.*.meta_info": "meta_info_file",
    "gt_usm": "l1_gt_usm",  # RealESRNet files sharpen the ground truth of their only loss
}
"""Key -> what it is called here, in the same section."""

IGNORED: dict[str, str] = {
    "datasets.*.prefetch_mode": "batches are always prefetched",
    "datasets.*.num_prefetch_queue": "batches are always prefetched",
    "datasets.*.phase": "the section's name says it",
    "val.window_size": "images of any size are padded by the network",
    "val.rgb2bgr": "colour order is kept everywhere",
    "val.use_image": "metrics are taken on 8-bit images, as in the papers",
    "val.max_minibatch": "images are restored one by one",
    "val.patchwise_testing": "tiles are set by val.tile",
    "path.ignore_resume_networks": "a resumed run restores every network",
    "path.experiments_root": "folders are made under path.root",
    "path.results_root": "folders are made under path.root",
    "path.models": "folders are made under path.root",
    "path.training_states": "folders are made under path.root",
    "path.log": "folders are made under path.root",
    "path.visualization": "folders are made under path.root",
    "find_unused_parameters": "no network has unused parameters",
    "is_train": "the command says it",
    "dist": "the launcher says it",
    "rank": "the launcher says it",
    "world_size": "the launcher says it",
    "auto_resume": "give --auto_resume on the command line",
}
"""Key -> why it has no effect here. Accepted, with a warning unless it is off (`~` or false)."""


def modernise(data: dict[str, Any], lines: dict[KeyPath, int]) -> tuple[dict[str, Any], list[str]]:
    """Rename and drop old keys: the new mapping, and a warning for each key that is on but has no effect.

    `data` is left as it is; `lines` gains the lines of renamed keys. Raises UserError where a file has a key under
    both its names.
    """
    data = _copy_sections(data)
    warnings = []
    for pattern, new_name in RENAMED.items():
        for section, path in _occurrences(data, pattern):
            if new_name in section:
                raise UserError(f"{'.'.join(path)}: is another name of '{new_name}', which is also there; keep one")
            section[new_name] = section.pop(path[-1])
            if path in lines:
                renamed = (*path[:-1], new_name)
                lines[renamed] = lines[path]
    for pattern, reason in IGNORED.items():
        for section, path in _occurrences(data, pattern):
            if section.pop(path[-1]) not in (None, False):  # what is off needs no warning that it has no effect
                warnings.append(f"key '{'.'.join(path)}' has no effect and is ignored: {reason}")
    return data, warnings


def _copy_sections(data: dict[str, Any]) -> dict[str, Any]:
    """Copy mappings (which YAML aliases may share), not values."""
    return {key: _copy_sections(value) if isinstance(value, dict) else value for key, value in data.items()}


def _occurrences(data: dict[str, Any], pattern: str) -> Iterator[tuple[dict[str, Any], KeyPath]]:
    """(section, key path) of each key that matches the pattern."""
    *outer, last = pattern.split(".")
    sections: list[tuple[dict[str, Any], KeyPath]] = [(data, ())]
    for name in outer:
        sections = [
            (child, (*path, key))
            for section, path in sections
            for key, child in section.items()
            if name in ("*", key) and isinstance(child, dict)
        ]
    for section, path in sections:
        if last in section:
            yield section, (*path, last)
