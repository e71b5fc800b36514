"""Kernels of what lies between the matrix products of a residual block: they go pixel by pixel over all channels.

Shapes: `rows` pixels of all images, C channels, CP >= C as matrix products take them: channels from C on are zero, but
with ONES channel C is one: the product then adds a bias, which lies in row C of the weights. A program takes tiles of
BR rows by BC >= CP channels. Sums are fp32; a `share` of rows, a multiple of BR, is summed by one program, and their
`parts` in order by `sum_parts_kernel`.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
SQRT_HALF = tl.constexpr(0.7071067811865476)
# 1 / sqrt(2 pi)
NORMAL = tl.constexpr(0.3989422804014327)


@triton.jit
def sigmoid(v):
    return 1.0 / (1.0 + tl.exp2(v * -LOG2_E))


@triton.jit
def normalised(x, live, C: tl.constexpr, EPS: tl.constexpr):
    """(x of mean 0 and variance 1 in each row, 1 / standard deviation (BR, 1)); zero where not live."""
    centred = tl.where(live, x - tl.sum(x, 1, keep_dims=True) / C, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 1, keep_dims=True) / C + EPS)
    return centred * scale, scale


@triton.jit
def through_norm(d_hat, hat, scale, C: tl.constexpr):
    """The gradient of what was normalised to `hat`, from that of `hat`."""
    mean = tl.sum(d_hat, 1, keep_dims=True) / C
    return (d_hat - mean - hat * (tl.sum(d_hat * hat, 1, keep_dims=True) / C)) * scale


@triton.jit(do_not_specialize=["rows"])
def norm_kernel(
    x_ptr, weight_ptr, bias_ptr, y_ptr, rows,
    C: tl.constexpr, CP: tl.constexpr, EPS: tl.constexpr, ONES: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """LayerNorm: x (rows, C) -> y (rows, CP)."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    live = c < C
    x = tl.load(x_ptr + r * C + c, mask=(r < rows) & live, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + c, mask=live, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)
    hat, _ = normalised(x, live, C, EPS)
    y = hat * weight + bias
    if ONES:
        y = tl.where(c == C, 1.0, y)
    tl.store(y_ptr + r * CP + c, y.to(y_ptr.dtype.element_ty), mask=(r < rows) & (c < CP))


@triton.jit(do_not_specialize=["rows", "share"])
def norm_backward_kernel(
    d_y_ptr, x_ptr, weight_ptr, d_out_ptr, skip_ptr, d_x_ptr, parts_ptr, rows, share,
    C: tl.constexpr, CP: tl.constexpr, EPS: tl.constexpr, SKIP: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of x -> LayerNorm -> ..., with SKIP + x skip: d_x (rows, C), and parts (P, 2 + SKIP, C) of weight's,
    bias's and skip's.

    d_y (rows, CP): of the LayerNorm's result.  d_out (rows, C): of the sum.
    """
    SUMS: tl.constexpr = 3 if SKIP else 2
    c = tl.arange(0, BC)[None, :]
    live = c < C
    weight = tl.load(weight_ptr + c, mask=live, other=0.0).to(tl.float32)
    d_weight = tl.zeros([BR, BC], tl.float32)
    d_bias = tl.zeros([BR, BC], tl.float32)
    if SKIP:
        skip = tl.load(skip_ptr + c, mask=live, other=0.0).to(tl.float32)
        d_skip = tl.zeros([BR, BC], tl.float32)
    first = tl.program_id(0).to(tl.int64) * share
    for start in range(0, share, BR):
        r = first + start + tl.arange(0, BR)[:, None]
        mask = (r < rows) & live
        x = tl.load(x_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32)
        d_y = tl.load(d_y_ptr + r * CP + c, mask=mask, other=0.0).to(tl.float32)
        hat, scale = normalised(x, live, C, EPS)
        d_weight += d_y * hat
        d_bias += d_y
        d_x = through_norm(d_y * weight, hat, scale, C)
        if SKIP:
            d_out = tl.load(d_out_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32)
            d_skip += d_out * x
            d_x += d_out * skip
        tl.store(d_x_ptr + r * C + c, d_x.to(d_x_ptr.dtype.element_ty), mask=mask)
    parts_ptr += tl.program_id(0) * (SUMS * C) + c
    tl.store(parts_ptr, tl.sum(d_weight, 0, keep_dims=True), mask=live)
    tl.store(parts_ptr + C, tl.sum(d_bias, 0, keep_dims=True), mask=live)
    if SKIP:
        tl.store(parts_ptr + 2 * C, tl.sum(d_skip, 0, keep_dims=True), mask=live)


@triton.jit(do_not_specialize=["rows", "part_stride"])
def gate_kernel(
    parts_ptr, z_ptr, weight_ptr, bias_ptr, y_ptr, gated_ptr, rows, part_stride,
    C: tl.constexpr, CP: tl.constexpr, ZS: tl.constexpr, PARTS: tl.constexpr, EPS: tl.constexpr, KEEP: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """gated (rows, CP) = LayerNorm(y) SiLU(z), where y (rows, C) is the sum of PARTS parts; z: rows ZS apart.

    KEEP: y is stored too, for the backward pass.
    """
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    live = c < C
    mask = (r < rows) & live
    y = tl.zeros([BR, BC], tl.float32)
    for part in tl.static_range(PARTS):
        y += tl.load(parts_ptr + part * tl.cast(part_stride, tl.int64) + r * C + c, mask=mask, other=0.0).to(tl.float32)
    y = y.to(y_ptr.dtype.element_ty)
    if KEEP:
        tl.store(y_ptr + r * C + c, y, mask=mask)
    z = tl.load(z_ptr + r * ZS + c, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + c, mask=live, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)
    hat, _ = normalised(y.to(tl.float32), live, C, EPS)
    gated = (hat * weight + bias) * z * sigmoid(z)
    tl.store(gated_ptr + r * CP + c, gated.to(gated_ptr.dtype.element_ty), mask=(r < rows) & (c < CP))


@triton.jit(do_not_specialize=["rows", "share"])
def gate_backward_kernel(
    d_gated_ptr, y_ptr, z_ptr, weight_ptr, bias_ptr, d_y_ptr, d_z_ptr, parts_ptr, rows, share,
    C: tl.constexpr, CP: tl.constexpr, ZS: tl.constexpr, ZW: tl.constexpr, EPS: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """d_y (rows, C); d_z, rows ZS apart, ZW wide with zeros from C on; parts (P, 2, C) of weight's and bias's."""
    c = tl.arange(0, BC)[None, :]
    live = c < C
    weight = tl.load(weight_ptr + c, mask=live, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)
    d_weight = tl.zeros([BR, BC], tl.float32)
    d_bias = tl.zeros([BR, BC], tl.float32)
    first = tl.program_id(0).to(tl.int64) * share
    for start in range(0, share, BR):
        r = first + start + tl.arange(0, BR)[:, None]
        mask = (r < rows) & live
        y = tl.load(y_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32)
        z = tl.load(z_ptr + r * ZS + c, mask=mask, other=0.0).to(tl.float32)
        d_gated = tl.load(d_gated_ptr + r * CP + c, mask=mask, other=0.0).to(tl.float32)
        hat, scale = normalised(y, live, C, EPS)
        s = sigmoid(z)
        d_z = d_gated * (hat * weight + bias) * s * (1.0 + z * (1.0 - s))
        tl.store(d_z_ptr + r * ZS + c, d_z.to(d_z_ptr.dtype.element_ty), mask=(r < rows) & (c < ZW))
        d_norm = d_gated * z * s
        d_weight += d_norm * hat
        d_bias += d_norm
        d_y = through_norm(d_norm * weight, hat, scale, C)
        tl.store(d_y_ptr + r * C + c, d_y.to(d_y_ptr.dtype.element_ty), mask=mask)
    parts_ptr += tl.program_id(0) * (2 * C) + c
    tl.store(parts_ptr, tl.sum(d_weight, 0, keep_dims=True), mask=live)
    tl.store(parts_ptr + C, tl.sum(d_bias, 0, keep_dims=True), mask=live)


@triton.jit(do_not_specialize=["rows"])
def gelu_kernel(
    u_ptr, bias_ptr, g_ptr, rows,
    C: tl.constexpr, US: tl.constexpr, CP: tl.constexpr, BIAS: tl.constexpr, ONES: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """g (rows, CP) = GELU(u + bias); u: rows US apart."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    live = c < C
    v = tl.load(u_ptr + r * US + c, mask=(r < rows) & live, other=0.0).to(tl.float32)
    if BIAS:
        v += tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)
    g = 0.5 * v * (1.0 + tl.erf(v * SQRT_HALF))
    if ONES:
        g = tl.where(c == C, 1.0, g)
    tl.store(g_ptr + r * CP + c, g.to(g_ptr.dtype.element_ty), mask=(r < rows) & (c < CP))


@triton.jit(do_not_specialize=["rows", "share"])
def gelu_backward_kernel(
    d_g_ptr, u_ptr, bias_ptr, d_u_ptr, parts_ptr, rows, share,
    C: tl.constexpr, US: tl.constexpr, CP: tl.constexpr, BIAS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """d_u, rows US apart with zeros from C on; BIAS: parts (P, 1, C) of its gradient."""
    c = tl.arange(0, BC)[None, :]
    live = c < C
    d_bias = tl.zeros([BR, BC], tl.float32)
    if BIAS:
        bias = tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)
    first = tl.program_id(0).to(tl.int64) * share
    for start in range(0, share, BR):
        r = first + start + tl.arange(0, BR)[:, None]
        mask = (r < rows) & live
        v = tl.load(u_ptr + r * US + c, mask=mask, other=0.0).to(tl.float32)
        if BIAS:
            v += bias
        d_g = tl.load(d_g_ptr + r * CP + c, mask=mask, other=0.0).to(tl.float32)
        slope = 0.5 * (1.0 + tl.erf(v * SQRT_HALF)) + v * NORMAL * tl.exp2(v * v * (-0.5 * LOG2_E))
        d_u = d_g * slope
        d_bias += d_u
        tl.store(d_u_ptr + r * US + c, d_u.to(d_u_ptr.dtype.element_ty), mask=(r < rows) & (c < US))
    if BIAS:
        tl.store(parts_ptr + tl.program_id(0) * C + c, tl.sum(d_bias, 0, keep_dims=True), mask=live)


@triton.jit(do_not_specialize=["rows", "pixels"])
def add_skip_kernel(
    branch_ptr, scale_ptr, bias_ptr, x_ptr, skip_ptr, out_ptr, rows, pixels,
    C: tl.constexpr, CP: tl.constexpr, SCALE: tl.constexpr, BIAS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out (rows, C) = (branch (rows, CP) + bias) scale + x (rows, C) skip.

    SCALE: "none"; "image", a number for each image of `pixels` pixels; "channel", (B, C).
    """
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (r < rows) & (c < C)
    branch = tl.load(branch_ptr + r * CP + c, mask=mask, other=0.0).to(tl.float32)
    if BIAS:
        branch += tl.load(bias_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    if SCALE == "image":
        branch *= tl.load(scale_ptr + r // pixels, mask=r < rows, other=0.0).to(tl.float32)
    if SCALE == "channel":
        branch *= tl.load(scale_ptr + r // pixels * C + c, mask=mask, other=0.0)
    x = tl.load(x_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32)
    skip = tl.load(skip_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    tl.store(out_ptr + r * C + c, (branch + x * skip).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "pixels"])
def to_branch_kernel(
    d_out_ptr, scale_ptr, shift_ptr, d_branch_ptr, rows, pixels,
    C: tl.constexpr, CP: tl.constexpr, SCALE: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """d_branch (rows, CP), zeros from C on: d_out (rows, C) times the scale of `add_skip_kernel`.

    "channel" also adds a shift (B, C).
    """
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    c = tl.arange(0, BC)[None, :]
    mask = (r < rows) & (c < C)
    d = tl.load(d_out_ptr + r * C + c, mask=mask, other=0.0).to(tl.float32)
    if SCALE == "image":
        d *= tl.load(scale_ptr + r // pixels, mask=r < rows, other=0.0).to(tl.float32)
    if SCALE == "channel":
        place = r // pixels * C + c
        d = d * tl.load(scale_ptr + place, mask=mask, other=0.0) + tl.load(shift_ptr + place, mask=mask, other=0.0)
    tl.store(d_branch_ptr + r * CP + c, d.to(d_branch_ptr.dtype.element_ty), mask=(r < rows) & (c < CP))


@triton.jit(do_not_specialize=["parts"])
def sum_parts_kernel(
    parts_ptr, first_ptr, second_ptr, third_ptr, parts, C: tl.constexpr, ROWS: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """parts (parts, ROWS, C), summed in their order -> first, second and third (C)."""
    row = tl.program_id(1)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    p = tl.arange(0, BP)[:, None]
    total = tl.zeros([BP, BC], tl.float32)
    parts_ptr += row * C + c[None, :]
    for start in range(0, parts, BP):
        total += tl.load(parts_ptr + (start + p) * (ROWS * C), mask=(start + p < parts) & (c < C)[None, :], other=0.0)
    total = tl.sum(total, 0)
    if row == 0:
        tl.store(first_ptr + c, total.to(first_ptr.dtype.element_ty), mask=c < C)
    elif row == 1:
        tl.store(second_ptr + c, total.to(second_ptr.dtype.element_ty), mask=c < C)
    else:
        tl.store(third_ptr + c, total.to(third_ptr.dtype.element_ty), mask=c < C)
