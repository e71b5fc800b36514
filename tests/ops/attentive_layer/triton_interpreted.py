"""Run by test_triton_interpreter.py in a process of its own, since Triton reads TRITON_INTERPRET when it is imported.

Prints one JSON object: case -> output or parameter name -> relative error against the modules in float64.
"""

import copy
import json
import os
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor

from mambair.archs.attentive_blocks import AttentiveLayer
from mambair.archs.feed_forward import ConvFFN, GatedConvFFN
from mambair.ops.attentive_layer.function import PartFunction
from mambair.ops.backends import ENVIRONMENT_VARIABLE
from mambair.ops.launching import PreparedKernel
from tests.ops.cases import relative_error

HALF = torch.float16
Outcome = dict[str, Tensor]


def random_layer(channels: int, light: bool, **options) -> AttentiveLayer:
    """A layer in float64 whose parameters are all random."""
    settings = {
        "d_state": 3, "num_heads": 2, "window_size": 4, "shift": 2, "inner_rank": 3, "num_tokens": 5,
        "convffn_kernel_size": 5, "mlp_ratio": 1.0, "qkv_bias": True, "routing": "argmax",
    } | options  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layer = AttentiveLayer(channels, feed_forward=GatedConvFFN if light else ConvFFN, **settings).double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if not name.endswith(("A_logs", "dt_projs_bias")):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.3 * noise if parameter.ndim == 1 else 0.2 * noise)
    return layer


def used_by(layer: AttentiveLayer, *prefixes: str) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in layer.named_parameters() if name.startswith(prefixes)}


def attend(layer: AttentiveLayer, x: Tensor, _: Tensor) -> tuple[Tensor, Outcome]:
    return layer._attend(x), used_by(layer, "norm1", "wqkv", "win_mhsa")


def mix(layer: AttentiveLayer, x: Tensor, other: Tensor) -> tuple[Tensor, Outcome]:
    y = layer._mix(x, other, layer.norm2, layer.convffn1, layer.scale1)
    return y, used_by(layer, "norm2", "convffn1", "scale1")


def scan(layer: AttentiveLayer, x: Tensor, other: Tensor) -> tuple[Tensor, Outcome]:
    noise = None
    if layer.training:
        generator = torch.Generator().manual_seed(3)
        noise = torch.rand(x.shape[0], x[0, :, :, 0].numel(), layer.assm.num_tokens, generator=generator) + 0.1
    return layer._scan(x, noise), used_by(layer, "norm3", "assm", "embeddingA")


def outcome(part: Callable, layer: AttentiveLayer, inputs: tuple[Tensor, Tensor], weights: Tensor) -> Outcome:
    """The part's result and all gradients."""
    x, other = (tensor.detach().requires_grad_() for tensor in inputs)
    y, used = part(layer, x, other)
    found = torch.autograd.grad((y * weights.to(y)).sum(), [x, other, *used.values()], materialize_grads=True)
    return {"y": y.detach()} | dict(zip(("x", "other", *used), found, strict=True))


def case(
    part: Callable, channels: int, light: bool, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32, *,
    drawn: bool = False, watched: bool = False, **options,
) -> dict[str, float]:  # fmt: skip
    layer = random_layer(channels, light, **options).train(drawn)
    single = copy.deepcopy(layer).float()
    generator = torch.Generator().manual_seed(1)
    x, other, weights = torch.randn(3, *shape, channels, generator=generator, dtype=torch.float64)
    if watched:
        for module in (single.wqkv, single.convffn1.fc1, single.assm.out_norm):
            module.register_forward_hook(lambda *_: None)
    with mock.patch.dict(os.environ):
        del os.environ[ENVIRONMENT_VARIABLE]  # which has no backend for float64
        expected = outcome(part, layer, (x, other), weights)
    with (
        torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32),
        mock.patch.object(PartFunction, "apply", wraps=PartFunction.apply) as applied,
    ):
        found = outcome(part, single, (x.float(), other.float()), weights)
    assert applied.call_count == (0 if watched else 1)
    assert found["y"].dtype == torch.float32
    return {name: relative_error(found[name], expected[name]) for name in expected}


PUBLISHED = {
    "light": {"channels": 48, "num_heads": 4, "d_state": 8, "inner_rank": 32, "num_tokens": 64, "mlp_ratio": 1.0},
    "base": {"channels": 174, "num_heads": 6, "d_state": 16, "inner_rank": 64, "num_tokens": 128, "mlp_ratio": 2.0},
}


def bytes_kept(name: str, images: int) -> float:
    """Of a pixel of 64x64 ones, what a published layer keeps for its backward pass in a training step, without weights.

    Kernels are not run: only sizes count.
    """
    layer = random_layer(light=name == "light", window_size=16, shift=8, **PUBLISHED[name]).float().train()
    channels, tokens = PUBLISHED[name]["channels"], PUBLISHED[name]["num_tokens"]
    x, noise = torch.zeros(images, 64, 64, channels, requires_grad=True), torch.ones(images, 64 * 64, tokens)
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        sizes[memory.data_ptr()] = memory.nbytes()
        return tensor

    with (
        mock.patch.object(PreparedKernel, "__call__", lambda *_: None),
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        attended = layer._attend(x)
        mixed = layer._mix(attended, x, layer.norm2, layer.convffn1, layer.scale1)
        scanned = layer._scan(mixed, noise)
        _kept_alive = layer._mix(scanned, mixed, layer.norm4, layer.convffn2, layer.scale2)
    weights = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    return sum(size for at, size in sizes.items() if at not in weights) / x[..., 0].numel()


def all_cases() -> Iterator[tuple[str, dict[str, float]]]:
    yield "light mix", case(mix, 10, True, (2, 3, 5))
    yield "light mix, half precision", case(mix, 16, True, (1, 4, 6), HALF)
    yield "mix", case(mix, 7, False, (2, 3, 5), mlp_ratio=2.0)
    yield "mix, half precision", case(mix, 10, False, (1, 4, 6), HALF, mlp_ratio=2.0)
    yield "mix, step by step", case(mix, 10, True, (1, 3, 4), watched=True)
    for name, images, most in (("light", 16, 2600), ("base", 4, 10700)):
        yield f"{name} layer, bytes kept", {"too many": max(0.0, bytes_kept(name, images) - most)}
    yield "attention", case(attend, 10, True, (1, 8, 4))
    yield "attention, no bias", case(attend, 34, True, (1, 4, 8), qkv_bias=False, shift=0)
    yield "attention, half precision", case(attend, 12, False, (1, 8, 8), HALF, num_heads=3)
    yield "scan", case(scan, 7, True, (2, 3, 5))
    yield "scan, step by step", case(scan, 6, True, (1, 3, 4), watched=True)
    yield "scan, drawn tokens", case(scan, 6, True, (2, 4, 3), drawn=True, mlp_ratio=1.5)
    yield "scan, half precision", case(scan, 8, True, (1, 4, 8), HALF, drawn=True)


print(json.dumps(dict(all_cases())))
