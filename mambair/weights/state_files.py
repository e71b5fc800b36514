"""Files of weights: read .pth and .safetensors without running code in them, write them atomically."""

import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mambair.errors import UserError
from mambair.runtime.files import atomic_write

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
"""Keys under which files keep the state dict, best first."""
PREFIXES = ("module.", "_orig_mod.", "netG.", "net_g.")
"""What DistributedDataParallel, torch.compile and others put before every key."""
METADATA_KEY = "mambair"
"""Where save_state_dict puts the network's options: in the .pth's dict, in the .safetensors' metadata."""

_TRUNCATED = "is truncated or damaged; fetch it again"

# What torch's reader raises on damaged bytes, besides its UnpicklingError: it takes them for instructions and follows.
_DAMAGE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
)


class DamagedFileError(ValueError):
    """A file that torch.load cannot read."""


class CodeInFileError(ValueError):
    """A pickle that asks for more than tensors and plain values; the message is the name of what it asks for."""


def load_tensors(path: Path) -> Any:
    """What torch.load reads, on the CPU, with nothing in the file executed.

    Raises CodeInFileError for files with Python objects in them and DamagedFileError for any that is not whole.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged files: about odd protocols that they seem to be written in
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise DamagedFileError("not a whole file") from error
        raise CodeInFileError(found[1]) from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.strerror:
            raise DamagedFileError(error.strerror) from error
        raise DamagedFileError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def read_weights_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Read a .pth (pickle, tensors only) or .safetensors file, told apart by their first bytes.

    Returns what is in the file, still wrapped in `params` or the like, and the options of the network if
    `save_state_dict` put them there. Raises UserError saying what the file is when it is no weight file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"weights {path}: this is a folder; give the file in it")
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise UserError(f"weights {path}: no such file") from None
    except OSError as error:
        raise UserError(f"weights {path}: cannot be read ({error.strerror})") from None
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _read_pickle(path)
    raise UserError(f"weights {path}: {_what_it_is(head)}")


def _what_it_is(head: bytes) -> str:
    if not head:
        return "the file is empty; fetch it again"
    if head.lstrip()[:1] == b"<":
        return "this is a web page, not weights; the download link led to a page, so fetch the file itself"
    if head.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not weights; run 'git lfs pull' or fetch the file itself"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"II*\x00", b"MM\x00*", b"BM")):
        return "this is an image, not weights"
    return "this is neither a PyTorch (.pth) nor a safetensors file"


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        options = json.loads(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
    except (SafetensorError, json.JSONDecodeError, OSError, MemoryError):
        raise UserError(f"weights {path}: the file {_TRUNCATED}") from None
    return state, _checked_options(options, path)


def _read_pickle(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    try:
        content = load_tensors(path)
    except CodeInFileError as error:
        raise UserError(
            f"weights {path}: refused, since the file holds Python objects ({error}) that could run code when "
            "loaded; ask for a file with tensors only, best .safetensors"
        ) from None
    except DamagedFileError as error:
        if "TorchScript" in str(error):
            raise UserError(f"weights {path}: this is a TorchScript program; a state dict (.pth) is needed") from None
        raise UserError(f"weights {path}: the file {_TRUNCATED}") from None
    if not isinstance(content, Mapping):
        raise UserError(f"weights {path}: the file holds a {type(content).__name__}, not a network's weights")
    return dict(content), _checked_options(content.get(METADATA_KEY), path)


def _checked_options(options: Any, path: Path) -> dict[str, Any] | None:
    """The network's options that a file carries, if they can be any."""
    if options is not None and not (isinstance(options, dict) and isinstance(options.get("type"), str)):
        raise UserError(f"weights {path}: its metadata '{METADATA_KEY}' does not describe a network")
    return options


def unwrap(content: Mapping[str, Any], path: str | Path, param_key: str | None = None) -> dict[str, Tensor]:
    """The bare state dict in what `read_weights_file` returned.

    `param_key` picks one of several ('params' or 'params_ema'); by default the best of WRAPPERS. Prefixes of
    wrappers such as DistributedDataParallel are removed. Raises UserError when there are no weights inside.
    """
    if "optimizers" in content or ("optimizer_state_dict" in content and not set(WRAPPERS) & set(content)):
        raise UserError(
            f"weights {path}: this is a training state, for path.resume_state; the weights are in models/net_g_*.pth"
        )
    wrappers = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    if param_key is not None and wrappers and param_key not in wrappers:
        raise UserError(f"weights {path}: there is no '{param_key}' in the file; it has {', '.join(wrappers)}")
    state = content[param_key or wrappers[0]] if wrappers else content
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(list(map(str, content))[:5])
        raise UserError(f"weights {path}: there are no weights in the file (its keys: {keys})")
    return _strip_prefixes(tensors)


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if any(key.startswith("module.") for key in state):
        state.pop("n_averaged", None)  # the counter of torch.optim.swa_utils.AveragedModel
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            if all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                stripped = True
    return state


def read_state_dict(path: str | Path, param_key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a .pth or .safetensors file: {key: tensor on the CPU}, without wrapper or prefix.

    `param_key` picks 'params' or 'params_ema' where a file has both; by default the averaged ones. Nothing in the
    file is ever executed. Raises UserError that says what the file is when it holds no weights.
    """
    return unwrap(read_weights_file(path)[0], path, param_key)


def save_state_dict(
    path: str | Path,
    options: Mapping[str, Any] | None,
    params: Mapping[str, Tensor],
    params_ema: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights atomically, as .safetensors if `path` ends so, else as a .pth with the published keys.

    A .pth holds {"params", "params_ema" if given}; a .safetensors holds the averaged weights if given. `options`,
    what `build_network` takes, goes along as metadata, so that the network can be rebuilt from the file alone.
    """
    path = Path(path)
    with atomic_write(path) as temporary:
        if path.suffix == ".safetensors":
            metadata = {"format": "pt"}
            if options is not None:
                metadata[METADATA_KEY] = json.dumps(dict(options))
            state = {key: value.detach().cpu().contiguous() for key, value in (params_ema or params).items()}
            temporary.write_bytes(save(state, metadata))  # save_file's files only their owner may read
        else:
            content: dict[str, Any] = {"params": _on_cpu(params)}
            if params_ema is not None:
                content["params_ema"] = _on_cpu(params_ema)
            if options is not None:
                content[METADATA_KEY] = dict(options)
            torch.save(content, temporary)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in state.items()}
