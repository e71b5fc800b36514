"""Parameters and operations of a network, in two countings.

**module counting** is what the thop tool does, and what the paper's Table 4 shows: parameters and MACs of Linear,
Conv2d, LayerNorm and pooling modules. It misses the scan and every parameter that lies directly on a block.

**full counting** has every parameter, the FLOPs of every matrix product and convolution (2 per MAC, as
torch.utils.flop_counter counts them, the scan's projections included), and those of the scan by `SCAN_RULE`. In both,
elementwise functions cost nothing (but a LayerNorm, in the module counting, 4 per value).

Networks run on the meta device: shapes only, so any size is counted at once.

Shapes: B batch, H x W pixels, L = H*W, E inner channels, K directions, R rank of delta, N states, D = K*E.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mambair.archs import assm, vssm, window_attention
from mambair.ops.flops import selective_scan_flops

SCAN_RULE = "9*B*L*D*N + B*L*D FLOPs for a selective scan over D = directions * inner channels with N states"

# What thop counts per value of a LayerNorm with weight and bias.
LAYER_NORM_COST = 4

COUNTED_MODULES = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.AdaptiveAvgPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Complexity:
    """Cost of one forward pass of a network on one image."""

    height: int
    """Rows of the input image."""
    width: int
    """Columns of the input image."""
    module_parameters: int
    """Parameters of Linear, Conv2d, LayerNorm and pooling modules."""
    module_macs: int
    """Their multiply-accumulates by the rules of the thop tool."""
    parameters: int
    """All parameters."""
    product_flops: int
    """FLOPs of all matrix products and convolutions."""
    scan_flops: int
    """FLOPs of the selective scans, by `SCAN_RULE`."""

    @property
    def flops(self) -> int:
        """All FLOPs of the full counting."""
        return self.product_flops + self.scan_flops


def measure_complexity(network: nn.Module, height: int, width: int, channels: int = 3) -> Complexity:
    """Count `network`, which is left as it is, on one input image of height x width pixels.

    Works for any network whose forward takes a (1, channels, height, width) tensor on the meta device.
    """
    network = copy.deepcopy(network).to("meta").eval()
    module_macs: list[int] = []
    for module in network.modules():
        if isinstance(module, COUNTED_MODULES):
            module.register_forward_hook(
                lambda module, inputs, output: module_macs.append(_macs(module, inputs[0], output))
            )
    image = torch.empty(1, channels, height, width, device="meta")
    with torch.no_grad(), count_scans() as scan_flops, FlopCounterMode(display=False) as counter:
        network(image)
    scans = sum(isinstance(module, (vssm.VSSM, assm.ASSM)) for module in network.modules())
    assert len(scan_flops) == scans, f"{scans} scan modules, but {len(scan_flops)} scans were counted"
    return Complexity(
        height=height,
        width=width,
        module_parameters=count_module_parameters(network),
        module_macs=sum(module_macs),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        product_flops=counter.get_total_flops(),
        scan_flops=sum(scan_flops),
    )


def count_module_parameters(network: nn.Module) -> int:
    """Parameters that the module counting sees."""
    counted = (module for module in network.modules() if isinstance(module, COUNTED_MODULES))
    return sum(parameter.numel() for module in counted for parameter in module.parameters(recurse=False))


def _macs(module: nn.Module, features: Tensor, output: Tensor) -> int:
    """MACs of one call of a module, by the rules of the thop tool."""
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, nn.Conv2d):
        kernel_height, kernel_width = module.kernel_size
        return output.numel() * (module.in_channels // module.groups) * kernel_height * kernel_width
    if isinstance(module, nn.LayerNorm):
        return LAYER_NORM_COST * features.numel()
    # One addition per pooled value and one division per result.
    return features.numel() + output.numel()


@contextmanager
def count_scans() -> Iterator[list[int]]:
    """Within the block, networks skip their scans and append each one's FLOPs to the list that is yielded.

    Window attention is its two products, whichever way it is computed in otherwise.

    The scan's projections are computed (on the meta device: their shapes), so that a FlopCounterMode sees them.
    """
    counted: list[int] = []

    def counting_scan(
        x: Tensor,
        x_proj_weight: Tensor,
        dt_projs_weight: Tensor,
        dt_projs_bias: Tensor,
        A_logs: Tensor,
        Ds: Tensor,
        directions: int = 4,
        backend: str = "auto",
    ) -> Tensor:
        batch, *sizes, channels = x.shape
        length = math.prod(sizes)
        rank, states = dt_projs_weight.shape[2], A_logs.shape[1]
        pixels = x.reshape(1, batch * length, channels).expand(directions, -1, -1)  # (K, B*L, E)
        projected = torch.bmm(pixels, x_proj_weight.transpose(1, 2))  # (K, B*L, R + 2N)
        torch.bmm(projected[..., :rank], dt_projs_weight.transpose(1, 2))  # (K, B*L, E)
        counted.append(selective_scan_flops(batch, length, directions * channels, states))
        return torch.empty_like(x)

    def counting_attentive_scan(
        x: Tensor, tokens: Tensor, policy: Tensor | None, prompts: Tensor, *parameters: Tensor
    ) -> Tensor:
        x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds = parameters
        return counting_scan(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, directions=1)

    def counting_attention(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int = 0) -> Tensor:
        heads, pixels = bias_table.shape[1], window_size**2
        q, k, v = qkv.reshape(-1, pixels, 3, qkv.shape[3] // (3 * heads)).unbind(2)  # (windows * heads, w*w, d)
        return torch.bmm(torch.bmm(q, k.transpose(1, 2)), v).view(*qkv.shape[:3], -1)

    with (
        mock.patch.object(window_attention, "window_attention", counting_attention),
        mock.patch.object(vssm, "ss2d_scan", counting_scan),
        mock.patch.object(assm, "attentive_scan", counting_attentive_scan),
    ):
        yield counted
