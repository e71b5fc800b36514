"""The kernel that brings up to six tensors into other layouts and types: padded, turned, cast."""

import triton
import triton.language as tl

SEGMENTS = 6
# Sizes of every kind come by; a kernel for each divisor of theirs would only cost time to compile.
_SIZES = [f"{name}{index}" for index in range(SEGMENTS) for name in ("end", "B", "C", "VA", "VC", "sa", "sb", "sc")]


@triton.jit
def _copy(source_ptr, target_ptr, start, end, B, C, VA, VC, sa, sb, sc, BLOCK: tl.constexpr):
    place = start + tl.arange(0, BLOCK)
    c = place % C
    b = place // C % B
    a = place // (C * B)
    mask = (place < end) & (a < VA) & (c < VC)
    value = tl.load(source_ptr + a * sa + b * sb + c * sc, mask=mask, other=0.0)
    tl.store(target_ptr + place, value.to(target_ptr.dtype.element_ty), mask=place < end)


@triton.jit(do_not_specialize=_SIZES)
def copy_kernel(
    s0_ptr, s1_ptr, s2_ptr, s3_ptr, s4_ptr, s5_ptr, t0_ptr, t1_ptr, t2_ptr, t3_ptr, t4_ptr, t5_ptr,
    end0, B0, C0, VA0, VC0, sa0, sb0, sc0, end1, B1, C1, VA1, VC1, sa1, sb1, sc1,
    end2, B2, C2, VA2, VC2, sa2, sb2, sc2, end3, B3, C3, VA3, VC3, sa3, sb3, sc3,
    end4, B4, C4, VA4, VC4, sa4, sb4, sc4, end5, B5, C5, VA5, VC5, sa5, sb5, sc5,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Target i is (A, B, C), contiguous, of `end` elements; its element (a, b, c) is the source's a sa + b sb + c sc,
    or zero where a >= VA or c >= VC. Targets of no elements are left alone.
    """
    start = tl.program_id(0) * BLOCK
    segment = tl.program_id(1)
    if segment == 0:
        if start < end0:
            _copy(s0_ptr, t0_ptr, start, end0, B0, C0, VA0, VC0, sa0, sb0, sc0, BLOCK)
    elif segment == 1:
        if start < end1:
            _copy(s1_ptr, t1_ptr, start, end1, B1, C1, VA1, VC1, sa1, sb1, sc1, BLOCK)
    elif segment == 2:
        if start < end2:
            _copy(s2_ptr, t2_ptr, start, end2, B2, C2, VA2, VC2, sa2, sb2, sc2, BLOCK)
    elif segment == 3:
        if start < end3:
            _copy(s3_ptr, t3_ptr, start, end3, B3, C3, VA3, VC3, sa3, sb3, sc3, BLOCK)
    elif segment == 4:
        if start < end4:
            _copy(s4_ptr, t4_ptr, start, end4, B4, C4, VA4, VC4, sa4, sb4, sc4, BLOCK)
    elif start < end5:
        _copy(s5_ptr, t5_ptr, start, end5, B5, C5, VA5, VC5, sa5, sb5, sc5, BLOCK)
