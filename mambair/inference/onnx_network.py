"""A network in an ONNX file that `mambair export` wrote, run by ONNX Runtime in place of PyTorch (the extra `export`).

Shapes: B images, C channels, H x W pixels of the low-quality input, s the scale of the network.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mambair.archs.layers import reflect_pad
from mambair.errors import UserError

ONNX_EXTENSION = ".onnx"

PREFIX = "mambair."
"""Of the keys of a file's metadata, which are listed in docs/export.md."""

# Execution providers of ONNX Runtime by the names of devices, the fastest first for "auto".
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}

SHARING = ("session.dynamic_block_base", "1")
"""How threads share an operator: a thread takes the next, smaller part when it is done with one. A pass of the light
network at 128 x 128 pixels took 2.59 s in place of 2.76 on two cores between which data pass slowly, and as long as
without, 1.66 s, where they pass fast."""

BYTES_PER_CHANNEL = 320
"""Bytes of memory per input pixel and channel of the body, by which tiles are chosen: what a pass took above the memory
at its start, of ONNX Runtime 1.32 on the CPU at 128 x 128 pixels, was 114 for the light MambaIR (122 at 64 x 64, 93 at
256 x 256), 163 for the classic one, 278 for MambaIRv2, and 313 for MambaIRUNet, which widens its body."""


def runtime_reason() -> str | None:
    """Why ONNX Runtime is not there, with the remedy; None if it is."""
    if find_spec("onnxruntime") is None:
        return "ONNX files need onnxruntime; install it with: pip install 'mambair[export]'"
    return None


class OnnxNetwork(nn.Module):
    """The network of an ONNX file, as one of PyTorch's: (B, C, H, W) in [0, 1] -> (B, C, s*H, s*W) on the CPU.

    A file of one size takes images up to that size: they are reflected up to it, and the result is cropped.

    Args:
        path: the file.
        device: auto (the fastest that this ONNX Runtime has), cpu, cuda, cuda:N, directml or coreml.

    Raises:
        UserError: ONNX Runtime is not installed, the file cannot be read or was not written by `mambair export`, the
            device is not there.
    """

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        super().__init__()
        reason = runtime_reason()
        if reason is not None:
            raise UserError(f"{path}: {reason}")
        self.path = Path(path)
        self._session = open_session(self.path, find_providers(device))
        self.metadata = read_metadata(self._session.get_modelmeta().custom_metadata_map, self.path)
        self.scale, self.in_channels, self.size_multiple = (
            int(self.metadata[key]) for key in ("scale", "channels", "size_multiple")
        )
        self.hyperparameters: dict[str, Any] = json.loads(self.metadata["options"])
        self._input = self._session.get_inputs()[0]
        self.bytes_per_channel = BYTES_PER_CHANNEL

    @property
    def provider(self) -> str:
        """What runs the network, by ONNX Runtime's name."""
        return self._session.get_providers()[0]

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(H, W) of a file that takes one size only; None for one that takes any."""
        height, width = self._input.shape[2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the file is compiled."""
        raise UserError(f"{self.path}: is run by ONNX Runtime, which compiles nothing more; leave --compile out")

    def forward(self, x: Tensor) -> Tensor:
        """Restore (B, C, H, W). Raises UserError for an image larger than the file takes."""
        if self.fixed_size is None:
            return self._run(x)
        height, width = x.shape[2:]
        rows, columns = self.fixed_size
        if height > rows or width > columns:
            raise UserError(
                f"{self.path}: takes {columns}x{rows} pixels, not {width}x{height}; leave --tile out, or export a "
                "file without --size"
            )
        restored = self._run(reflect_pad(x, rows, columns))
        return restored[:, :, : height * self.scale, : width * self.scale]

    def _run(self, x: Tensor) -> Tensor:
        if isinstance(self._input.shape[0], int):  # a file for one image at a time
            return torch.cat([self._run_session(image) for image in x.split(1)])
        return self._run_session(x)

    def _run_session(self, x: Tensor) -> Tensor:
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

        try:
            (restored,) = self._session.run(None, {self._input.name: np.ascontiguousarray(x.float().cpu().numpy())})
        except (Fail, RuntimeException) as error:
            # Memory that does not suffice is told from the rest by its words, as PyTorch's is.
            raise RuntimeError(f"{self.path}: ONNX Runtime: {str(error).splitlines()[0]}") from error
        return torch.from_numpy(restored)


def open_session(source: Path | bytes, providers: list[Any]) -> Any:
    """An onnxruntime.InferenceSession on a file, or on its content. Raises UserError if it is no ONNX file."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warnings on its own rearrangements
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry(*SHARING)
    unreadable = (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoModel,
        state.NoSuchFile,
        state.NotImplemented,
    )
    try:
        return onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source), options, providers=providers
        )
    except unreadable as error:
        named = "this file" if isinstance(source, bytes) else source
        raise UserError(f"{named}: ONNX Runtime cannot load it ({str(error).splitlines()[0]})") from error


def find_providers(device: str) -> list[Any]:
    """The execution providers for a device's name, the CPU last, for operators that the others lack."""
    import onnxruntime

    name, _, index = device.partition(":")
    available = onnxruntime.get_available_providers()
    here = [known for known, provider in PROVIDERS.items() if provider in available]
    if name == "auto":
        return [PROVIDERS[known] for known in here]
    if name not in here:
        raise UserError(f"device: '{device}' is not among those of this ONNX Runtime: auto, {', '.join(here)}")
    first = (PROVIDERS[name], {"device_id": int(index)}) if index.isdigit() else PROVIDERS[name]
    return [first] if name == "cpu" else [first, PROVIDERS["cpu"]]


def read_metadata(found: Mapping[str, str], path: Path) -> dict[str, str]:
    """What `mambair export` notes in a file, without the keys' prefix. Raises UserError for any other file."""
    metadata = {key.removeprefix(PREFIX): value for key, value in found.items() if key.startswith(PREFIX)}
    missing = [key for key in ("scale", "channels", "size_multiple", "options") if key not in metadata]
    if missing:
        raise UserError(
            f"{path}: was not written by mambair export (its metadata lack {PREFIX}{missing[0]}), so its scale and "
            "channels are not known; pass the weights themselves, or export them anew"
        )
    return metadata
