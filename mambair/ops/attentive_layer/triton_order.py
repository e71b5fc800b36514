"""Kernels of the attentive state-space module: pixels are routed, and scanned in the order of their tokens.

Shapes, tiles and sums: as in `mambair.ops.rssb.triton_rows`. E inner channels, T tokens.

    order       (rows)       int64, the pixel of all images that comes at this place of the order
    tokens      (rows)       int16
    logits      (rows, TP)   of the router; noise (rows, T), fp32, exponentially distributed
    sorted      (rows, E)    in the order
"""

import triton
import triton.language as tl

from mambair.ops.rssb.triton_rows import LOG2_E, normalised, sigmoid, through_norm

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _scores(logits_ptr, noise_ptr, r, t, rows, T: tl.constexpr, TP: tl.constexpr, NOISE: tl.constexpr):
    """(BR, BT): what the choice is the largest of; -inf beyond the tokens."""
    mask = (r < rows) & (t < T)
    scores = tl.load(logits_ptr + r * TP + t, mask=mask, other=0.0).to(tl.float32)
    if NOISE:
        scores -= tl.log2(tl.load(noise_ptr + r * T + t, mask=mask, other=1.0)) * LN_2
    return tl.where(t < T, scores, float("-inf"))


@triton.jit(do_not_specialize=["rows"])
def route_kernel(
    logits_ptr, noise_ptr, tokens_ptr, rows,
    T: tl.constexpr, TP: tl.constexpr, NOISE: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """tokens: the largest of logits - log(noise); the first of equal ones."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    scores = _scores(logits_ptr, noise_ptr, r[:, None], tl.arange(0, BC)[None, :], rows, T, TP, NOISE)
    tl.store(tokens_ptr + r, tl.argmax(scores, 1).to(tokens_ptr.dtype.element_ty), mask=r < rows)


@triton.jit(do_not_specialize=["rows"])
def route_backward_kernel(
    d_policy_ptr, logits_ptr, noise_ptr, d_logits_ptr, rows,
    T: tl.constexpr, TP: tl.constexpr, NOISE: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """d_logits (rows, TP), zeros behind, from d_policy (rows, T): through the softmax of logits - log(noise)."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    t = tl.arange(0, BC)[None, :]
    scores = _scores(logits_ptr, noise_ptr, r, t, rows, T, TP, NOISE)
    policy = tl.exp2((scores - tl.max(scores, 1, keep_dims=True)) * LOG2_E)
    policy = policy / tl.sum(policy, 1, keep_dims=True)
    d = tl.load(d_policy_ptr + r * T + t, mask=(r < rows) & (t < T), other=0.0).to(tl.float32)
    d = policy * (d - tl.sum(policy * d, 1, keep_dims=True))
    tl.store(d_logits_ptr + r * TP + t, d.to(d_logits_ptr.dtype.element_ty), mask=(r < rows) & (t < TP))


@triton.jit(do_not_specialize=["rows"])
def gate_kernel(
    inner_ptr, local_ptr, order_ptr, sorted_ptr, rows,
    E: tl.constexpr, EP: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """sorted = inner sigmoid(local) in the order, of inner (rows, EP) and local (rows, E)."""
    i = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (i < rows) & (c < E)
    r = tl.load(order_ptr + i, mask=i < rows, other=0)
    inner = tl.load(inner_ptr + r * EP + c, mask=mask, other=0.0).to(tl.float32)
    local = tl.load(local_ptr + r * E + c, mask=mask, other=0.0).to(tl.float32)
    tl.store(sorted_ptr + i * E + c, (inner * sigmoid(local)).to(sorted_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def gate_backward_kernel(
    d_sorted_ptr, inner_ptr, local_ptr, order_ptr, d_inner_ptr, d_local_ptr, rows,
    E: tl.constexpr, EP: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """d_inner (rows, EP), zeros behind, and d_local (rows, E)."""
    i = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (i < rows) & (c < E)
    r = tl.load(order_ptr + i, mask=i < rows, other=0)
    d = tl.load(d_sorted_ptr + i * E + c, mask=mask, other=0.0).to(tl.float32)
    inner = tl.load(inner_ptr + r * EP + c, mask=mask, other=0.0).to(tl.float32)
    s = sigmoid(tl.load(local_ptr + r * E + c, mask=mask, other=0.0).to(tl.float32))
    tl.store(d_inner_ptr + r * EP + c, (d * s).to(d_inner_ptr.dtype.element_ty), mask=(i < rows) & (c < EP))
    d_local = d * inner * s * (1.0 - s)
    tl.store(d_local_ptr + r * E + c, d_local.to(d_local_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def norm_kernel(
    sorted_ptr, order_ptr, weight_ptr, bias_ptr, y_ptr, rows,
    E: tl.constexpr, YP: tl.constexpr, EPS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """y (rows, YP) = LayerNorm(sorted), back from the order; ones behind."""
    i = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    live = c < E
    r = tl.load(order_ptr + i, mask=i < rows, other=0)
    x = tl.load(sorted_ptr + i * E + c, mask=(i < rows) & live, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + c, mask=live, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)
    hat, _ = normalised(x, live, E, EPS)
    y = tl.where(c == E, 1.0, hat * weight + bias)
    tl.store(y_ptr + r * YP + c, y.to(y_ptr.dtype.element_ty), mask=(i < rows) & (c < YP))


@triton.jit(do_not_specialize=["rows", "share"])
def norm_backward_kernel(
    d_y_ptr, sorted_ptr, order_ptr, weight_ptr, d_sorted_ptr, parts_ptr, rows, share,
    E: tl.constexpr, YP: tl.constexpr, EPS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """d_sorted (rows, E), and parts (P, 2, E) of weight's and bias's gradients, from d_y (rows, YP)."""
    c = tl.arange(0, BC)[None, :]
    live = c < E
    weight = tl.load(weight_ptr + c, mask=live, other=0.0).to(tl.float32)
    d_weight = tl.zeros([BR, BC], tl.float32)
    d_bias = tl.zeros([BR, BC], tl.float32)
    first = tl.program_id(0).to(tl.int64) * share
    for start in range(0, share, BR):
        i = first + start + tl.arange(0, BR)[:, None]
        mask = (i < rows) & live
        r = tl.load(order_ptr + i, mask=i < rows, other=0)
        x = tl.load(sorted_ptr + i * E + c, mask=mask, other=0.0).to(tl.float32)
        d_y = tl.load(d_y_ptr + r * YP + c, mask=mask, other=0.0).to(tl.float32)
        hat, scale = normalised(x, live, E, EPS)
        d_weight += d_y * hat
        d_bias += d_y
        d = through_norm(d_y * weight, hat, scale, E)
        tl.store(d_sorted_ptr + i * E + c, d.to(d_sorted_ptr.dtype.element_ty), mask=mask)
    parts_ptr += tl.program_id(0) * (2 * E) + c
    tl.store(parts_ptr, tl.sum(d_weight, 0, keep_dims=True), mask=live)
    tl.store(parts_ptr + E, tl.sum(d_bias, 0, keep_dims=True), mask=live)
