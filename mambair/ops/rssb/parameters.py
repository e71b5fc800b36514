"""The parameters of both halves of a residual state-space block, as their modules name them."""

from typing import NamedTuple

from torch import Tensor


class ScanHalfParameters(NamedTuple):
    """The tensors of a VSSM, its LayerNorm before and its skip connection."""

    norm_weight: Tensor
    norm_bias: Tensor
    in_proj: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    x_proj_weight: Tensor
    dt_projs_weight: Tensor
    dt_projs_bias: Tensor
    A_logs: Tensor
    Ds: Tensor
    out_norm_weight: Tensor
    out_norm_bias: Tensor
    out_proj: Tensor
    skip_scale: Tensor


class CommonParameters(NamedTuple):
    """LayerNorm, channel attention (two 1x1 convolutions) and skip connection."""

    norm_weight: Tensor
    norm_bias: Tensor
    squeeze_weight: Tensor
    squeeze_bias: Tensor
    excite_weight: Tensor
    excite_bias: Tensor
    skip_scale: Tensor


class ClassicParameters(NamedTuple):
    """Two 3x3 convolutions, C -> J -> C."""

    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor


class LightParameters(NamedTuple):
    """Pointwise C -> J, depthwise, pointwise J -> C, dilated depthwise."""

    first_weight: Tensor
    first_bias: Tensor
    first_depthwise_weight: Tensor
    first_depthwise_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    second_depthwise_weight: Tensor
    second_depthwise_bias: Tensor
