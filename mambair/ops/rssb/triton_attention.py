"""Kernels of the channel attention: each channel of an image is weighted by a function of all channels' means.

Shapes: B images of `pixels` pixels, C channels, in rows CP apart, S squeezed channels. An image is summed in `chunks`
shares, multiples of BR, one a program.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["pixels", "share"])
def sums_kernel(u_ptr, sums_ptr, pixels, share, C: tl.constexpr, CP: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr):
    """sums (B, chunks, C) of u."""
    c = tl.arange(0, BC)[None, :]
    live = c < C
    chunk = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    total = tl.zeros([BR, BC], tl.float32)
    for start in range(0, share, BR):
        r = chunk * share + start + tl.arange(0, BR)[:, None]
        mask = (r < pixels) & live
        total += tl.load(u_ptr + (b * pixels + r) * CP + c, mask=mask, other=0.0).to(tl.float32)
    place = (b * tl.num_programs(0) + chunk) * C + c
    tl.store(sums_ptr + place, tl.sum(total, 0, keep_dims=True), mask=live)


@triton.jit(do_not_specialize=["pixels", "share"])
def gradient_sums_kernel(
    d_out_ptr, u_ptr, bias_ptr, sums_ptr, pixels, share,
    C: tl.constexpr, CP: tl.constexpr, BIAS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """sums (B, chunks, 2, C) of d_out (u + bias) and of d_out, which is (rows, C)."""
    c = tl.arange(0, BC)[None, :]
    live = c < C
    chunk = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    products = tl.zeros([BR, BC], tl.float32)
    total = tl.zeros([BR, BC], tl.float32)
    for start in range(0, share, BR):
        r = chunk * share + start + tl.arange(0, BR)[:, None]
        mask = (r < pixels) & live
        u = tl.load(u_ptr + (b * pixels + r) * CP + c, mask=mask, other=0.0).to(tl.float32)
        if BIAS:
            u += tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)
        d_out = tl.load(d_out_ptr + (b * pixels + r) * C + c, mask=mask, other=0.0).to(tl.float32)
        products += d_out * u
        total += d_out
    place = (b * tl.num_programs(0) + chunk) * (2 * C) + c
    tl.store(sums_ptr + place, tl.sum(products, 0, keep_dims=True), mask=live)
    tl.store(sums_ptr + place + C, tl.sum(total, 0, keep_dims=True), mask=live)


@triton.jit
def _total(sums_ptr, chunks, step, live, BK: tl.constexpr, BC: tl.constexpr):
    """Sum over chunks, `step` apart, in their order: (1, BC)."""
    k = tl.arange(0, BK)[:, None]
    total = tl.zeros([BK, BC], tl.float32)
    for start in range(0, chunks, BK):
        total += tl.load(sums_ptr + (start + k) * step, mask=(start + k < chunks) & live, other=0.0)
    return tl.sum(total, 0, keep_dims=True)


@triton.jit(do_not_specialize=["chunks", "pixels"])
def attention_kernel(
    sums_ptr, bias_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, means_ptr, hidden_ptr, scale_ptr, chunks, pixels,
    C: tl.constexpr, S: tl.constexpr, BIAS: tl.constexpr, BK: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """scale (B, C) = sigmoid(w2 relu(w1 means + b1) + b2); w1 (S, C), w2 (C, S). Keeps means (B, C), hidden (B, S)."""
    b = tl.program_id(0)
    c = tl.arange(0, BC)[None, :]
    s = tl.arange(0, BS)[:, None]
    live = c < C
    both = (s < S) & live
    means = _total(sums_ptr + b * chunks * C + c, chunks, C, live, BK, BC) / pixels
    if BIAS:
        means += tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)
    w1 = tl.load(w1_ptr + s * C + c, mask=both, other=0.0).to(tl.float32)
    b1 = tl.load(b1_ptr + s, mask=s < S, other=0.0).to(tl.float32)
    hidden = tl.maximum(tl.sum(w1 * means, 1, keep_dims=True) + b1, 0.0)
    w2 = tl.load(w2_ptr + c * S + s, mask=both, other=0.0).to(tl.float32)
    before = tl.sum(w2 * hidden, 0, keep_dims=True) + tl.load(b2_ptr + c, mask=live, other=0.0).to(tl.float32)
    tl.store(means_ptr + b * C + c, means, mask=live)
    tl.store(hidden_ptr + b * S + s, hidden, mask=s < S)
    tl.store(scale_ptr + b * C + c, 1.0 / (1.0 + tl.exp2(before * -LOG2_E)), mask=live)


@triton.jit(do_not_specialize=["chunks", "pixels"])
def attention_backward_kernel(
    sums_ptr, w1_ptr, w2_ptr, hidden_ptr, scale_ptr, d_before_ptr, d_hidden_ptr, shift_ptr, d_bias_ptr, chunks, pixels,
    C: tl.constexpr, S: tl.constexpr, BK: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """From the sums of `gradient_sums_kernel`, of each image: gradients before the sigmoid d_before (B, C) and before
    the ReLU d_hidden (B, S); shift (B, C), what a pixel gets through the mean; d_bias (B, C), of the bias of u.
    """
    b = tl.program_id(0)
    c = tl.arange(0, BC)[None, :]
    s = tl.arange(0, BS)[:, None]
    live = c < C
    both = (s < S) & live
    sums_ptr += b * chunks * (2 * C) + c
    products = _total(sums_ptr, chunks, 2 * C, live, BK, BC)
    total = _total(sums_ptr + C, chunks, 2 * C, live, BK, BC)
    scale = tl.load(scale_ptr + b * C + c, mask=live, other=0.0)
    hidden = tl.load(hidden_ptr + b * S + s, mask=s < S, other=0.0)
    d_before = products * scale * (1.0 - scale)
    w2 = tl.load(w2_ptr + c * S + s, mask=both, other=0.0).to(tl.float32)
    d_hidden = tl.where(hidden > 0.0, tl.sum(w2 * d_before, 1, keep_dims=True), 0.0)
    w1 = tl.load(w1_ptr + s * C + c, mask=both, other=0.0).to(tl.float32)
    d_means = tl.sum(w1 * d_hidden, 0, keep_dims=True)
    tl.store(d_before_ptr + b * C + c, d_before, mask=live)
    tl.store(d_hidden_ptr + b * S + s, d_hidden, mask=s < S)
    tl.store(shift_ptr + b * C + c, d_means / pixels, mask=live)
    tl.store(d_bias_ptr + b * C + c, scale * total + d_means, mask=live)


@triton.jit(do_not_specialize=["images"])
def attention_weights_kernel(
    d_before_ptr, d_hidden_ptr, means_ptr, hidden_ptr, d_bias_parts_ptr, d_w1_ptr, d_b1_ptr, d_w2_ptr, d_b2_ptr,
    d_bias_ptr, images, C: tl.constexpr, S: tl.constexpr, BIAS: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of the weights, summed over the images in their order; a program takes BC channels."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)[None, :]
    s = tl.arange(0, BS)[:, None]
    live = c < C
    both = (s < S) & live
    d_w1 = tl.zeros([BS, BC], tl.float32)
    d_w2 = tl.zeros([BS, BC], tl.float32)
    d_b1 = tl.zeros([BS, 1], tl.float32)
    d_b2 = tl.zeros([1, BC], tl.float32)
    d_bias = tl.zeros([1, BC], tl.float32)
    for b in range(images):
        d_before = tl.load(d_before_ptr + b * C + c, mask=live, other=0.0)
        means = tl.load(means_ptr + b * C + c, mask=live, other=0.0)
        hidden = tl.load(hidden_ptr + b * S + s, mask=s < S, other=0.0)
        d_hidden = tl.load(d_hidden_ptr + b * S + s, mask=s < S, other=0.0)
        d_w1 += d_hidden * means
        d_w2 += d_before * hidden
        d_b1 += d_hidden
        d_b2 += d_before
        if BIAS:
            d_bias += tl.load(d_bias_parts_ptr + b * C + c, mask=live, other=0.0)
    tl.store(d_w1_ptr + s * C + c, d_w1.to(d_w1_ptr.dtype.element_ty), mask=both)
    tl.store(d_w2_ptr + c * S + s, d_w2.to(d_w2_ptr.dtype.element_ty), mask=both)
    tl.store(d_b2_ptr + c, d_b2.to(d_b2_ptr.dtype.element_ty), mask=live)
    if BIAS:
        tl.store(d_bias_ptr + c, d_bias.to(d_bias_ptr.dtype.element_ty), mask=live)
    if tl.program_id(0) == 0:
        tl.store(d_b1_ptr + s, d_b1.to(d_b1_ptr.dtype.element_ty), mask=s < S)
