"""A network written down as a graph: by torch.export, and from that as ONNX.

Shapes: B images, C channels, H x W pixels of the low-quality input.
"""

import importlib.util
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mambair.archs.network import traits_of
from mambair.commands.export.scans import write_scans
from mambair.errors import UserError
from mambair.ops.symbolic import symbolic_scans

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

OPSET = 18
"""Version of ONNX's operators: the first whose ReduceSum, Split and LayerNormalization are all as PyTorch's exporter
writes them."""

INPUT, OUTPUT = "image", "restored"
AXES = {0: "batch", 2: "height", 3: "width"}
"""What is open of a file's input that takes any size."""

EXAMPLE = (2, 203, 333)
"""B, H and W that a network for any size is traced with: different, so that none is taken for another, and so large
that nothing, such as the positions of a chunk at a U-Net's lowest level, is 1, which PyTorch takes for a constant."""


class Traced(nn.Module):
    """A network with images of float32 on both sides, and the results of `stages` beside its own.

    Args:
        network: maps (B, C, H, W) in [0, 1] to (B, C, s*H, s*W); in half precision if `half`.
        half: whether the network computes in half precision; the scan inside stays in float32.
        stages: modules of the network whose results are returned too.
    """

    def __init__(self, network: nn.Module, half: bool, stages: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.network = network
        self.half_precision = half
        self._seen: list[Tensor] = []
        self._hooks = [stage.register_forward_hook(self._note) for stage in stages]

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen.append(output.float().clone())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        self._seen.clear()
        restored = self.network(image.half() if self.half_precision else image).float()
        return (restored, *self._seen)

    def release(self) -> None:
        """Take the hooks off the network."""
        for hook in self._hooks:
            hook.remove()


def trace(
    network: nn.Module,
    size: tuple[int, int] | None,
    half: bool,
    stages: Sequence[nn.Module] = (),
    symbolic: bool = False,
) -> torch.export.ExportedProgram:
    """The network for one image of (H, W), or for any number and size; `symbolic`: with scans as nodes for ONNX.

    Raises UserError, with PyTorch's reason, for a network that cannot be written down.
    """
    if size is not None:
        return _trace(network, (1, *size), (), half, stages, symbolic)
    try:
        return _trace(network, EXAMPLE, tuple(AXES), half, stages, symbolic)
    except UserError as error:  # many a network can be written down for one image though not for several
        program = _trace(network, (1, *EXAMPLE[1:]), tuple(AXES)[1:], half, stages, symbolic)
        logger.warning("the file takes one image at a time: %s", error)
        return program


def _trace(
    network: nn.Module,
    example: tuple[int, int, int],
    axes: tuple[int, ...],
    half: bool,
    stages: Sequence[nn.Module],
    symbolic: bool,
) -> torch.export.ExportedProgram:
    """The network as it is at an example of (B, H, W), with open `axes`."""
    batch, height, width = example
    image = torch.zeros(batch, traits_of(network).in_channels, height, width)
    open_axes = dict.fromkeys(axes, torch.export.Dim.DYNAMIC) or None
    traced = Traced(network, half, stages)
    try:
        with torch.no_grad(), quiet(), symbolic_scans() if symbolic else nullcontext():
            return torch.export.export(traced, (image,), dynamic_shapes={"image": open_axes}, strict=False)
    except Exception as error:  # PyTorch's tracer raises what it meets, of any kind, in any network of anybody's
        raise UserError(f"{type(network).__name__} cannot be exported by PyTorch {_reason(error)}") from error
    finally:
        traced.release()


def unguarded(program: torch.export.ExportedProgram) -> nn.Module:
    """What runs the program, without guards: for open sizes they compare strides on which nothing depends."""
    if "check_guards" in inspect.signature(program.module).parameters:
        return program.module(check_guards=False)
    return program.module()


def to_onnx(
    network: nn.Module, size: tuple[int, int] | None, half: bool, stages: Sequence[nn.Module] = ()
) -> "onnx.ModelProto":
    """The network in ONNX's operators. Raises UserError, with the reason, where PyTorch cannot translate it."""
    _check_exporter()
    program = trace(network, size, half, stages, symbolic=True)
    try:
        with quiet():
            translated = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
            )
    except Exception as error:  # see above
        raise UserError(f"{type(network).__name__} cannot be translated to ONNX by PyTorch {_reason(error)}") from error
    assert translated is not None
    model = write_scans(translated.model_proto)
    _name_axes(model)
    return model


def _name_axes(model: "onnx.ModelProto") -> None:
    """Call the input's open axes height and width, in place of the tracer's s0, s17 ..."""
    for axis, dimension in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        if dimension.dim_param:
            dimension.dim_param = AXES[axis]
    for value in (*model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.ClearField("dim_param")


def _check_exporter() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"ONNX files need {package}; install it with: pip install 'mambair[export]'")
    if importlib.util.find_spec("torch.onnx.ops") is None:
        raise UserError(
            f"PyTorch {torch.__version__} is too old to write ONNX files, 2.8 can; upgrade it with: "
            "pip install --upgrade torch torchvision"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's warnings on what it does itself, and the graphs that it prints where it fails."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch._export", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _reason(error: Exception) -> str:
    """The version and the innermost cause's first line, in parentheses."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{torch.__version__} ({line})"
