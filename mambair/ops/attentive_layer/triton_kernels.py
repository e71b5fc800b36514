"""Kernels of what lies between the matrix products of an attentive layer: they go pixel by pixel over all channels.

Shapes, tiles and sums: as in `mambair.ops.rssb.triton_rows`. F hidden channels of a feed-forward, G of its gate's half.
"""

import triton
import triton.language as tl

from mambair.ops.rssb.triton_rows import LOG2_E, NORMAL, SQRT_HALF, normalised, through_norm


@triton.jit
def gelu(v):
    return 0.5 * v * (1.0 + tl.erf(v * SQRT_HALF))


@triton.jit
def gelu_slope(v):
    return 0.5 * (1.0 + tl.erf(v * SQRT_HALF)) + v * NORMAL * tl.exp2(v * v * (-0.5 * LOG2_E))


@triton.jit(do_not_specialize=["rows"])
def add_kernel(
    branch_ptr, bias_ptr, x_ptr, other_ptr, scale_ptr, out_ptr, rows,
    C: tl.constexpr, CP: tl.constexpr, BIAS: tl.constexpr, OTHER: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out (rows, C) = branch (rows, CP) + bias + x (rows, C) + other (rows, C) scale."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (r < rows) & (c < C)
    out = tl.load(branch_ptr + r * CP + c, mask=mask, other=0.0).to(tl.float32)
    if BIAS:
        out += tl.load(bias_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    out += tl.load(x_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32)
    if OTHER:
        scale = tl.load(scale_ptr + c, mask=c < C, other=0.0).to(tl.float32)
        out += tl.load(other_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32) * scale
    tl.store(out_ptr + r * C + c, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "share"])
def add_backward_kernel(
    d_y_ptr, x_ptr, weight_ptr, d_out_ptr, other_ptr, scale_ptr, d_x_ptr, d_other_ptr, parts_ptr, rows, share,
    C: tl.constexpr, CP: tl.constexpr, EPS: tl.constexpr, OTHER: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of x -> LayerNorm -> ..., + bias + x + other scale: d_x and d_other (rows, C), and parts (P, 3, C).

    d_y (rows, CP): of the LayerNorm's result.  d_out (rows, C): of the sum.  parts: of the LayerNorm's weight and bias,
    and of the scale; without OTHER, of the bias.
    """
    c = tl.arange(0, BC)[None, :]
    live = c < C
    weight = tl.load(weight_ptr + c, mask=live, other=0.0).to(tl.float32)
    d_weight = tl.zeros([BR, BC], tl.float32)
    d_bias = tl.zeros([BR, BC], tl.float32)
    d_third = tl.zeros([BR, BC], tl.float32)
    if OTHER:
        scale = tl.load(scale_ptr + c, mask=live, other=0.0).to(tl.float32)
    first = tl.program_id(0).to(tl.int64) * share
    for start in range(0, share, BR):
        r = first + start + tl.arange(0, BR)[:, None]
        mask = (r < rows) & live
        x = tl.load(x_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32)
        d_y = tl.load(d_y_ptr + r * CP + c, mask=mask, other=0.0).to(tl.float32)
        d_out = tl.load(d_out_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32)
        hat, deviation = normalised(x, live, C, EPS)
        d_weight += d_y * hat
        d_bias += d_y
        if OTHER:
            d_third += d_out * tl.load(other_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32)
            tl.store(d_other_ptr + r * C + c, (d_out * scale).to(d_other_ptr.dtype.element_ty), mask=mask)
        else:
            d_third += d_out
        d_x = through_norm(d_y * weight, hat, deviation, C) + d_out
        tl.store(d_x_ptr + r * C + c, d_x.to(d_x_ptr.dtype.element_ty), mask=mask)
    parts_ptr += tl.program_id(0) * (3 * C) + c
    tl.store(parts_ptr, tl.sum(d_weight, 0, keep_dims=True), mask=live)
    tl.store(parts_ptr + C, tl.sum(d_bias, 0, keep_dims=True), mask=live)
    tl.store(parts_ptr + 2 * C, tl.sum(d_third, 0, keep_dims=True), mask=live)


@triton.jit(do_not_specialize=["rows"])
def gate_norm_kernel(
    u_ptr, weight_ptr, bias_ptr, h_ptr, rows,
    G: tl.constexpr, US: tl.constexpr, EPS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """h (rows, G) = LayerNorm(GELU(u)) of the second G channels of u, rows US apart."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    live = c < G
    mask = (r < rows) & live
    v = gelu(tl.load(u_ptr + r * US + G + c, mask=mask, other=0.0).to(tl.float32))
    weight = tl.load(weight_ptr + c, mask=live, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)
    hat, _ = normalised(v, live, G, EPS)
    tl.store(h_ptr + r * G + c, (hat * weight + bias).to(h_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "share"])
def gate_norm_backward_kernel(
    d_h_ptr, u_ptr, weight_ptr, d_u_ptr, parts_ptr, rows, share,
    G: tl.constexpr, US: tl.constexpr, EPS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The second G channels of d_u, rows US apart with zeros behind them; parts (P, 2, G) of weight's and bias's."""
    c = tl.arange(0, BC)[None, :]
    live = c < G
    weight = tl.load(weight_ptr + c, mask=live, other=0.0).to(tl.float32)
    d_weight = tl.zeros([BR, BC], tl.float32)
    d_bias = tl.zeros([BR, BC], tl.float32)
    first = tl.program_id(0).to(tl.int64) * share
    for start in range(0, share, BR):
        r = first + start + tl.arange(0, BR)[:, None]
        mask = (r < rows) & live
        u = tl.load(u_ptr + r * US + G + c, mask=mask, other=0.0).to(tl.float32)
        d_h = tl.load(d_h_ptr + r * G + c, mask=mask, other=0.0).to(tl.float32)
        hat, scale = normalised(gelu(u), live, G, EPS)
        d_weight += d_h * hat
        d_bias += d_h
        d_u = through_norm(d_h * weight, hat, scale, G) * gelu_slope(u)
        d_u = tl.where(live, d_u, 0.0)
        tl.store(d_u_ptr + r * US + G + c, d_u.to(d_u_ptr.dtype.element_ty), mask=(r < rows) & (c < US - G))
    parts_ptr += tl.program_id(0) * (2 * G) + c
    tl.store(parts_ptr, tl.sum(d_weight, 0, keep_dims=True), mask=live)
    tl.store(parts_ptr + G, tl.sum(d_bias, 0, keep_dims=True), mask=live)


@triton.jit(do_not_specialize=["rows"])
def gate_product_kernel(
    u_ptr, local_ptr, y_ptr, rows, G: tl.constexpr, US: tl.constexpr, CP: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """y (rows, CP) = GELU(u) local, of the first G channels of u, rows US apart, and local (rows, G); ones behind."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (r < rows) & (c < G)
    u = tl.load(u_ptr + r * US + c, mask=mask, other=0.0).to(tl.float32)
    y = gelu(u) * tl.load(local_ptr + r * G + c, mask=mask, other=0.0).to(tl.float32)
    y = tl.where(c == G, 1.0, y)
    tl.store(y_ptr + r * CP + c, y.to(y_ptr.dtype.element_ty), mask=(r < rows) & (c < CP))


@triton.jit(do_not_specialize=["rows"])
def gate_product_backward_kernel(
    d_y_ptr, u_ptr, local_ptr, d_u_ptr, d_local_ptr, rows,
    G: tl.constexpr, US: tl.constexpr, CP: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The first G channels of d_u, rows US apart, and d_local (rows, G), from d_y (rows, CP)."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (r < rows) & (c < G)
    u = tl.load(u_ptr + r * US + c, mask=mask, other=0.0).to(tl.float32)
    local = tl.load(local_ptr + r * G + c, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + r * CP + c, mask=mask, other=0.0).to(tl.float32)
    tl.store(d_u_ptr + r * US + c, (d_y * local * gelu_slope(u)).to(d_u_ptr.dtype.element_ty), mask=mask)
    tl.store(d_local_ptr + r * G + c, (d_y * gelu(u)).to(d_local_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def local_sum_kernel(
    g_ptr, local_ptr, y_ptr, rows, F: tl.constexpr, GS: tl.constexpr, CP: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """y (rows, CP) = g + GELU(local), of g, rows GS apart, and local (rows, F); ones behind."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (r < rows) & (c < F)
    y = tl.load(g_ptr + r * GS + c, mask=mask, other=0.0).to(tl.float32)
    y += gelu(tl.load(local_ptr + r * F + c, mask=mask, other=0.0).to(tl.float32))
    y = tl.where(c == F, 1.0, y)
    tl.store(y_ptr + r * CP + c, y.to(y_ptr.dtype.element_ty), mask=(r < rows) & (c < CP))


@triton.jit(do_not_specialize=["rows"])
def local_again_kernel(
    u_ptr, local_ptr, g_ptr, y_ptr, rows, F: tl.constexpr, US: tl.constexpr, CP: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """g = GELU(u), rows US apart with zeros behind, and y (rows, CP) as by `local_sum_kernel`, bit by bit."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (r < rows) & (c < F)
    g = gelu(tl.load(u_ptr + r * US + c, mask=mask, other=0.0).to(tl.float32)).to(g_ptr.dtype.element_ty)
    tl.store(g_ptr + r * US + c, g, mask=(r < rows) & (c < US))
    y = g.to(tl.float32) + gelu(tl.load(local_ptr + r * F + c, mask=mask, other=0.0).to(tl.float32))
    y = tl.where(c == F, 1.0, y)
    tl.store(y_ptr + r * CP + c, y.to(y_ptr.dtype.element_ty), mask=(r < rows) & (c < CP))


@triton.jit(do_not_specialize=["rows"])
def local_sum_backward_kernel(
    d_y_ptr, d_more_ptr, u_ptr, d_u_ptr, rows,
    F: tl.constexpr, US: tl.constexpr, DS: tl.constexpr, CP: tl.constexpr, MORE: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """d_u = (d_y (rows, CP) + d_more (rows, F), if MORE) times GELU's slope at u, rows US apart.

    d_u: rows DS apart, zeros from F on.
    """
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (r < rows) & (c < F)
    u = tl.load(u_ptr + r * US + c, mask=mask, other=0.0).to(tl.float32)
    d = tl.load(d_y_ptr + r * CP + c, mask=mask, other=0.0).to(tl.float32)
    if MORE:
        d += tl.load(d_more_ptr + r * F + c, mask=mask, other=0.0).to(tl.float32)
    tl.store(d_u_ptr + r * DS + c, (d * gelu_slope(u)).to(d_u_ptr.dtype.element_ty), mask=(r < rows) & (c < DS))
