"""Files of weights: read .pth and .safetensors without running code in them, write them atomically."""

import argparse
import datetime
import io
import json
import pathlib
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mambair.errors import UserError
from mambair.runtime.files import atomic_write
from mambair.weights.wrapping import unwrap

METADATA_KEY = "mambair"
"""Where save_state_dict puts the network's options: in the .pth's dict, in the .safetensors' metadata."""

_WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".pth.tar")
_ARCHIVES = {"gzip": b"\x1f\x8b", "7z": b"7z\xbc\xaf", "RAR": b"Rar!", "xz": b"\xfd7zXZ", "bzip2": b"BZh"}
# Unpacked into memory: no network of this kind comes near.
_LARGEST_MEMBER = 2**32

# The number that torch.save's format of before 1.6 begins with, as a pickle has it, behind its protocol and an opcode.
_TORCH_MAGIC, _TORCH_MAGIC_END = bytes.fromhex("6cfc9c46f9206aa85019"), 16

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


PROGRAM_EXTENSION = ".pt2"


def _empty_dict(*_: object) -> dict[Any, Any]:
    return {}


def _plain_types() -> Iterator[Any]:
    """What files may hold besides tensors: NumPy's arrays, and types of Python that hold values and do nothing.

    NumPy 1 and 2, and Python from 3.13 on, write them under different names.
    """
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        yield np.empty(0).__reduce__()[0], f"{module}._reconstruct"
        yield np.float64(0).__reduce__()[0], f"{module}.scalar"
    yield from (np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in np.typecodes["All"]})
    yield from (argparse.Namespace, datetime.datetime, datetime.date, datetime.timedelta)
    yield _empty_dict, "collections.defaultdict"  # torch fills no others
    yield from (list, dict, set, int, float, str)  # what a defaultdict makes
    for module in ("pathlib", "pathlib._local"):
        # Those of the other system cannot be made; the pure ones can.
        for kind, name in ((pathlib.PurePosixPath, "PosixPath"), (pathlib.PureWindowsPath, "WindowsPath")):
            yield kind, f"{module}.{name}"
            yield kind, f"{module}.Pure{name}"


_PLAIN_TYPES = tuple(_plain_types())


class DamagedFileError(ValueError):
    """A file that torch.load cannot read."""


class CodeInFileError(ValueError):
    """A pickle that asks for more than tensors and plain values; the message is the name of what it asks for."""


def load_tensors(source: Path | BinaryIO) -> Any:
    """What torch.load reads, on the CPU, with nothing in the file executed.

    Raises CodeInFileError for files with Python objects in them and DamagedFileError for any that is not whole.
    """
    try:
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged files: about odd protocols that they seem to be written in
            # An open file: by a name in .safetensors, torch takes whatever is in it for that.
            file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
            stack.enter_context(torch.serialization.safe_globals(list(_PLAIN_TYPES)))
            return torch.load(file, map_location="cpu", weights_only=True)
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
    """Read a .pth (pickle, tensors only) or .safetensors file, or the only one in a ZIP archive.

    They are told apart by their first bytes, whatever their names. Returns what is in the file, still wrapped in
    `params` or the like, and the options of the network if `save_state_dict` put them there. Raises UserError saying
    what the file is when it is no weight file.
    """
    path = Path(path)
    if path.suffix.lower() == PROGRAM_EXTENSION:
        raise UserError(
            f"weights {path}: this is a program of torch.export, which runs without this package "
            "(torch.export.load); pass the weights it was made of, or an .onnx file of `mambair export`"
        )
    try:
        if path.is_dir():
            raise UserError(f"weights {path}: this is a folder; give the file in it")
        with path.open("rb") as file:
            return _read_stream(file, path)
    except FileNotFoundError:
        raise UserError(f"weights {path}: no such file") from None
    except OSError as error:
        raise UserError(f"weights {path}: cannot be read ({error.strerror or error})") from None


def _read_stream(file: BinaryIO, path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    head = file.read(512)
    file.seek(0)
    if head[8:9] == b"{":
        return _read_safetensors(file, path)
    if head.startswith(b"PK\x03\x04"):
        member = _only_weights_in(file, path)
        if member is not None:
            return _read_stream(member, path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _read_pickle(file, path)
    raise UserError(f"weights {path}: {_what_it_is(head)}")


def _only_weights_in(file: BinaryIO, path: Path) -> BinaryIO | None:
    """The weight file that a ZIP archive was put around; None for PyTorch's own archives and damaged ones."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
                return None
            weights = [
                name for name in names if name.lower().endswith(_WEIGHT_SUFFIXES) and not name.startswith("__MACOSX")
            ]
            if len(weights) != 1:
                listed = ", ".join(weights[:3])
                holds = f"with {len(weights)} weight files ({listed}, ...)" if weights else "without weights"
                raise UserError(f"weights {path}: this is a ZIP archive {holds}; unpack it and give one file")
            if archive.getinfo(weights[0]).file_size > _LARGEST_MEMBER:
                raise UserError(f"weights {path}: this is a ZIP archive of a very large file; unpack it first")
            return io.BytesIO(archive.read(weights[0]))
    except (
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, struct.error),
        UnicodeDecodeError,  # of a damaged name
    ) as error:
        if "password" in str(error):
            raise UserError(f"weights {path}: this is a ZIP archive with a password; unpack it first") from None
        return None
    finally:
        file.seek(0)


def _what_it_is(head: bytes) -> str:
    if not head:
        return "the file is empty; fetch it again"
    if head.lstrip()[:1] == b"<":
        return "this is a web page, not weights; the download link led to a page, so fetch the file itself"
    if head.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not weights; run 'git lfs pull' or fetch the file itself"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"II*\x00", b"MM\x00*", b"BM")):
        return "this is an image, not weights"
    for archive, magic in _ARCHIVES.items():
        if head.startswith(magic):
            return f"this is an archive ({archive}); unpack it and give the file in it"
    if head[257:262] == b"ustar":
        return "this is an archive (tar); unpack it and give the file in it"
    return "this is neither a PyTorch (.pth) nor a safetensors file"


def _read_safetensors(file: BinaryIO, path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    try:
        data = file.read()
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
        state = load(data)
        options = json.loads(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
    except (SafetensorError, ValueError, AttributeError, TypeError, KeyError, MemoryError):
        raise UserError(f"weights {path}: the file {_TRUNCATED}") from None
    return state, _checked_options(options, path)


def _read_pickle(file: BinaryIO, path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    try:
        content = load_tensors(file)
    except CodeInFileError as error:
        raise UserError(
            f"weights {path}: refused, since the file holds Python objects ({error}) that could run code when "
            "loaded; ask for a file with tensors only, best .safetensors"
        ) from None
    except DamagedFileError as error:
        if "TorchScript" in str(error):
            raise UserError(f"weights {path}: this is a TorchScript program; a state dict (.pth) is needed") from None
        if _is_other_pickle(file):
            raise UserError(
                f"weights {path}: this is a pickle that torch.save did not write; load it in Python, and save its "
                "weights as .safetensors"
            ) from None
        raise UserError(f"weights {path}: the file {_TRUNCATED}") from None
    if not isinstance(content, Mapping):
        raise UserError(f"weights {path}: the file holds a {type(content).__name__}, not a network's weights")
    content = _with_tensors(content)
    return dict(content), _checked_options(content.get(METADATA_KEY), path)


def _is_other_pickle(file: BinaryIO) -> bool:
    file.seek(0)
    head = file.read(_TORCH_MAGIC_END)
    return head.startswith(b"\x80") and _TORCH_MAGIC not in head and len(head) == _TORCH_MAGIC_END


def _with_tensors(content: Any) -> Any:
    """NumPy's arrays of numbers in a file as tensors, wherever they are; all else as it is."""
    if isinstance(content, np.ndarray) and content.dtype.kind in "fiub":
        return torch.from_numpy(np.array(content.astype(content.dtype.newbyteorder("="), copy=False)))
    if isinstance(content, Mapping):
        return {key: _with_tensors(value) for key, value in content.items()}
    return content


def _checked_options(options: Any, path: Path) -> dict[str, Any] | None:
    """The network's options that a file carries, if they can be any."""
    if options is not None and not (isinstance(options, dict) and isinstance(options.get("type"), str)):
        raise UserError(f"weights {path}: its metadata '{METADATA_KEY}' does not describe a network")
    return options


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
