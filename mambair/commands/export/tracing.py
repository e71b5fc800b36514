"""A network written down as a graph: by torch.export, and from that as ONNX.

Shapes: B images, C channels, H x W pixels of the low-quality input.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mambair.archs.network import traits_of
from mambair.errors import UserError

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""Version of ONNX's operators: the first whose ReduceSum, Split and LayerNormalization are all as PyTorch's exporter
writes them."""

INPUT, OUTPUT = "image", "restored"
AXES = {2: "height", 3: "width"}
"""What may be open of a file's input: PyTorch 2.14 cannot translate the scan's loop for an open number of images."""

EXAMPLE = (40, 48)
"""H and W that a network for any size is traced with: different, so that neither is taken for the other."""


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
    network: nn.Module, size: tuple[int, int] | None, half: bool, stages: Sequence[nn.Module] = ()
) -> torch.export.ExportedProgram:
    """The network for one image of (H, W), or of any size.

    Raises UserError, with PyTorch's reason, for a network that cannot be written down.
    """
    example = torch.zeros(1, traits_of(network).in_channels, *(size or EXAMPLE))
    any_size = dict.fromkeys(AXES, torch.export.Dim.DYNAMIC) if size is None else None
    traced = Traced(network, half, stages)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(traced, (example,), dynamic_shapes={"image": any_size}, strict=False)
    except (RuntimeError, NotImplementedError, ValueError, AssertionError, ImportError) as error:
        raise UserError(f"{type(network).__name__} cannot be exported by PyTorch {_reason(error)}") from error
    finally:
        traced.release()


def to_onnx(program: torch.export.ExportedProgram) -> "onnx.ModelProto":
    """The traced network in ONNX's operators. Raises UserError, with the reason, where PyTorch cannot translate it."""
    _check_exporter()
    try:
        with _quiet():
            translated = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
            )
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise UserError(f"the network cannot be translated to ONNX by PyTorch {_reason(error)}") from error
    assert translated is not None
    model = translated.model_proto
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
    translations = importlib.import_module("torch.onnx._internal.exporter._torchlib.ops.hop")
    if not hasattr(translations, "higher_order_scan"):
        raise UserError(
            f"PyTorch {torch.__version__} cannot write a loop over the scan's steps to ONNX yet, 2.14 can; upgrade it "
            "with: pip install --upgrade torch torchvision"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings on what it does itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
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
