"""Kernels of the gradients of two 3x3 convolutions' weights, C -> J -> C, where J is much less than C.

Each is a matrix product over all pixels: sums of what has C channels, "wide", times what has J, "narrow", one of them
shifted by one of the 9 taps. The narrow one is shifted, since less is loaded then:

    parts[tap, c, j] = sum over pixels q of wide[q, c] narrow[q + tap, j], zero outside the image.

Of the convolution J -> C, narrow is its input and wide its result's gradient. Of C -> J, wide is the input and narrow
the result's gradient, which takes the taps in reverse.

Shapes: `rows` pixels of images H x W, channels CP >= C and JP >= J as convolutions take them. A program takes BC wide
channels and TAPS <= BT taps of BJ >= J narrow channels, BR pixels at a time; a `share` of rows, a multiple of BR, is
summed by one program, and the shares in order by `sum_weights_kernel`.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows", "share"])
def weight_parts_kernel(
    first_wide_ptr, first_narrow_ptr, second_wide_ptr, second_narrow_ptr, parts_ptr, rows, share,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, JP: tl.constexpr, TAPS: tl.constexpr,
    BC: tl.constexpr, BT: tl.constexpr, BJ: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """parts (programs, 2, 9, C, BJ) of both convolutions; their J come with the columns up to BJ, which say nothing."""
    TILES: tl.constexpr = (C + BC - 1) // BC
    second = tl.program_id(1)
    wide_ptr = tl.where(second == 1, second_wide_ptr, first_wide_ptr)
    narrow_ptr = tl.where(second == 1, second_narrow_ptr, first_narrow_ptr)
    c = tl.program_id(0) % TILES * BC + tl.arange(0, BC)
    n = tl.arange(0, BT * BJ)
    tap = tl.program_id(0) // TILES * TAPS + n // BJ
    taken = (n // BJ < TAPS) & (tap < 9)
    j = n % BJ
    down = (tap // 3 - 1)[None, :]
    right = (tap % 3 - 1)[None, :]
    first = tl.program_id(2) * share
    wide_ptr += tl.cast(first, tl.int64) * CP + c[:, None]
    narrow_ptr += tl.cast(first, tl.int64) * JP + (down * W + right) * JP + j[None, :]
    total = tl.zeros([BC, BT * BJ], tl.float32)
    for start in range(0, share, BR):
        r = start + tl.arange(0, BR)
        wide = tl.load(wide_ptr + (r * CP)[None, :], mask=(first + r < rows)[None, :] & (c < CP)[:, None], other=0.0)
        r = r[:, None]
        q = first + r
        y = q // W % H + down
        x = q % W + right
        inside = (y >= 0) & (y < H) & (x >= 0) & (x < W) & (q < rows)
        narrow = tl.load(narrow_ptr + r * JP, mask=inside & (taken & (j < JP))[None, :], other=0.0)
        total = tl.dot(wide, narrow, total)
    place = ((tl.program_id(2) * 2 + second) * 9 + tap) * C
    mask = (c < C)[:, None] & taken[None, :]
    tl.store(parts_ptr + (place[None, :] + c[:, None]) * BJ + j[None, :], total, mask=mask)


@triton.jit(do_not_specialize=["parts", "bias_parts"])
def sum_weights_kernel(
    parts_ptr, bias_parts_ptr, first_ptr, second_ptr, bias_ptr, parts, bias_parts,
    C: tl.constexpr, J: tl.constexpr, BJ: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """parts, summed in their order -> first (J, C, 3, 3), second (C, J, 3, 3); bias_parts (bias_parts, J) -> bias (J).

    A program takes BR of the 9 C rows of the parts, BK parts at a time, or of bias_parts BR channels, BP at a time.
    """
    which = tl.program_id(1)
    start = tl.program_id(0) * BR
    if which < 2:
        r = start + tl.arange(0, BR)[:, None]
        j = tl.arange(0, BJ)[None, :]
        mask = (r < 9 * C) & (j < J)
        total = tl.zeros([BR, BJ], tl.float32)
        first_part_ptr = parts_ptr + (which * (9 * C) + r) * BJ + j
        for low in range(0, parts, BK):
            for part in tl.static_range(BK):
                live = mask & (low + part < parts)
                total += tl.load(first_part_ptr + (low + part) * (18 * C * BJ), mask=live, other=0.0)
        tap = r // C
        c = r % C
        if which == 0:
            tl.store(first_ptr + (j * C + c) * 9 + 8 - tap, total.to(first_ptr.dtype.element_ty), mask=mask)
        else:
            tl.store(second_ptr + (c * J + j) * 9 + tap, total.to(second_ptr.dtype.element_ty), mask=mask)
    elif start < J:
        j = start + tl.arange(0, BR)
        p = tl.arange(0, BP)[:, None]
        totals = tl.zeros([BP, BR], tl.float32)
        for low in range(0, bias_parts, BP):
            mask = (low + p < bias_parts) & (j < J)[None, :]
            totals += tl.load(bias_parts_ptr + (low + p) * J + j[None, :], mask=mask, other=0.0)
        tl.store(bias_ptr + j, tl.sum(totals, 0).to(bias_ptr.dtype.element_ty), mask=j < J)
