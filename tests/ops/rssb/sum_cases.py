"""The kernels that sum parts, and the channel attention in shares, by the operator's launches and in float64."""

import torch
from torch import Tensor

from mambair.ops.rssb.rows import MANY_PROGRAMS, Attention, Rows

FP32 = torch.float32
# (pixels, channels, sums): many parts and few of them, blocks of channels that are whole and that are not.
SUMS = [(128 * 1056, 5, 3), (130, 60, 2), (16 * 515, 64, 1), (1, 1, 3)]
# (images, pixels, channels): shares in several turns and in one, the last one shorter; wide rows and narrow ones.
ATTENTIONS = [(1, 2500, 180), (2, 5003, 37), (3, 5, 65)]


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def sums(pixels: int, channels: int, count: int, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(found, expected) sums of `count` of the parts of so many pixels."""
    rows = Rows(1, pixels, device)
    parts = random(torch.Generator().manual_seed(pixels), rows.parts(channels, MANY_PROGRAMS), count, channels)
    found = torch.full((3, channels), torch.nan, device=device)
    source = parts.to(device, FP32)
    kernel = rows.sum_parts(channels, channels, count, FP32, programs=MANY_PROGRAMS)
    kernel(source.data_ptr(), *(row.data_ptr() for row in found))
    assert found[count:].isnan().all()
    return {str(i): found[i] for i in range(count)}, {str(i): parts.sum(0)[i] for i in range(count)}


def attention(
    images: int, pixels: int, channels: int, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(found, expected) scale, gradient through the mean, and gradients of the parameters."""
    squeezed, width = 5, channels + 3
    generator = torch.Generator().manual_seed(channels)
    u, d_out = random(generator, 2, images, pixels, channels) + 0.5
    of_channels, of_squeezed, w1, w2 = (channels,), (squeezed,), (squeezed, channels), (channels, squeezed)
    shapes = {"bias": of_channels, "w1": w1, "b1": of_squeezed, "w2": w2, "b2": of_channels}
    p = {name: random(generator, *shape) for name, shape in shapes.items()}
    expected = _expected(u, d_out, p)

    def empty(*shape: int) -> Tensor:
        return torch.full(shape, torch.nan, device=device)

    plan = Attention(Rows(images, pixels, device), channels, squeezed, width, True, FP32, FP32, FP32)
    wide = empty(images, pixels, width)
    wide[..., :channels] = u
    d_out = d_out.to(device, FP32)
    p = {name: tensor.to(device, FP32) for name, tensor in p.items()}
    sums, gradient_sums = empty(*plan.sums[0]), empty(*plan.gradient_sums_shape[0])
    means, scale, d_before, shift, d_bias = empty(5, images, channels)
    hidden, d_hidden = empty(2, images, squeezed)
    d = {name: torch.full_like(tensor, torch.nan) for name, tensor in p.items()}
    bias, *weights = (tensor.data_ptr() for tensor in p.values())
    d_bias_sum, *d_weights = (tensor.data_ptr() for tensor in d.values())
    of_images = (d_before.data_ptr(), d_hidden.data_ptr())
    plan.sum(wide.data_ptr(), sums.data_ptr())
    plan.weigh(sums.data_ptr(), bias, *weights, means.data_ptr(), hidden.data_ptr(), scale.data_ptr())
    plan.sum_gradients(d_out.data_ptr(), wide.data_ptr(), bias, gradient_sums.data_ptr())
    plan.weigh_backward(
        gradient_sums.data_ptr(), weights[0], weights[2], hidden.data_ptr(), scale.data_ptr(), *of_images,
        shift.data_ptr(), d_bias.data_ptr(),
    )  # fmt: skip
    plan.sum_weights(*of_images, means.data_ptr(), hidden.data_ptr(), d_bias.data_ptr(), *d_weights, d_bias_sum)
    return {"scale": scale, "shift": shift} | d, expected


def _expected(u: Tensor, d_out: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    u = u.requires_grad_()
    p = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
    means = u.mean(1) + p["bias"]
    hidden = torch.relu(means @ p["w1"].T + p["b1"])
    scale = torch.sigmoid(hidden @ p["w2"].T + p["b2"])
    d_u, *d = torch.autograd.grad(((u + p["bias"]) * scale[:, None] * d_out).sum(), [u, *p.values()])
    shift = (d_u - d_out * scale[:, None]).mean(1)
    return {"scale": scale.detach(), "shift": shift.detach()} | dict(zip(p, d, strict=True))
