"""Sums over the channels of a warp, for the gradients of B and C: two per place and state, over 32 threads.

Five shuffles per value would cost as much as the rest of gradients_kernel. Both ways here use the tensor cores.
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_walk import LANES, row_of

# Without moving the values first: any thread may hold any term of a sum. Four values of a thread, packed to two bf16
# pairs, are a B operand as they are: an element's column is the thread's group of four, its row the value and the
# thread's place in the group. A picks value r % 4 into row r, so that D[r, group] is the sum of that value over the
# group. Sixteen values make four such D, of which each thread keeps the rows of its own; a last product with ones sums
# over the eight groups.
_HEADER = """
.reg .pred lower, last;
.reg .b32 one, a0, a1, a2, a3, b0, b1;
.reg .f32 d<4>, e<4>, c<4>;
mov.b32 one, 0x3F800000;
"""
# No product has fewer columns in Triton before 3.5.
COLUMNS = tl.constexpr(16)
_ZEROS = "{0f00000000, 0f00000000, 0f00000000, 0f00000000}"


def _sum_sixteen(values: list[int], even: str, odd: str) -> str:
    """PTX: sums g and g + 8 of the 16 values in operands `values`, in c0 and c2 of every thread of group g."""
    lines = []
    for half, rows in enumerate(("01", "23")):
        for quarter, d in enumerate("de"):
            first = 8 * half + 4 * quarter
            v = [f"${value}" for value in values[first : first + 4]]
            lines.append(f"cvt.rn.bf16x2.f32 b0, {v[1]}, {v[0]}; cvt.rn.bf16x2.f32 b1, {v[3]}, {v[2]};")
            lines.append(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                f"{{{d}0, {d}1, {d}2, {d}3}}, {{{even}, {even}, {odd}, {odd}}}, {{b0, b1}}, {_ZEROS};"
            )
        lines += [f"selp.f32 c{row}, d{row}, e{row}, lower;" for row in rows]
    lines.append("mov.b32 a0, c0; mov.b32 a1, c2; mov.b32 a2, c1; mov.b32 a3, c3;")
    lines.append(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        f"{{c0, c1, c2, c3}}, {{a0, a1, a2, a3}}, {{one, one}}, {_ZEROS};"
    )
    return "\n".join(lines)


def _warp_sums() -> str:
    """PTX that sums two sets of 8 values over a warp; the first output of thread 4 g + j is sum g of set j (j < 2).

    Operands: 8 outputs; 8 and 8 values; and of `sum_operands`, 8 times each, even, odd, lower and last.
    """
    even, odd, lower, last = (f"${8 * (3 + index)}" for index in range(4))
    outputs = [f"mov.f32 ${index}, 0f00000000;" for index in range(1, 8)]
    tests = f"setp.ne.u32 lower, {lower}, 0; setp.ne.u32 last, {last}, 0;"
    chosen = "selp.f32 $0, c2, c0, last;"
    return "\n".join(["{", _HEADER, tests, _sum_sixteen(list(range(8, 24)), even, odd), chosen, *outputs, "}"])


_WARP_SUMS = tl.constexpr(_warp_sums())
_REGISTERS = tl.constexpr(",".join(["=&f"] * 8 + ["f"] * 16 + ["r"] * 32))


@triton.jit
def sum_operands():
    """What `store_sums_by_matrices` needs of the threads' places, to be computed once: four (1, 1, lanes)."""
    lane = tl.arange(0, LANES)[None, None, :]
    group = lane // 4
    row = group % 4
    even = tl.where(row == 0, 0x3F80, tl.where(row == 1, 0x3F800000, 0))
    odd = tl.where(row == 2, 0x3F80, tl.where(row == 3, 0x3F800000, 0))
    return even, odd, tl.where(group < 4, 1, 0), lane % 4


@triton.jit
def store_sums_by_matrices(target_ptr, between, first, second, even, odd, lower, last, T: tl.constexpr):
    """Sums of two (8, 1, 32) tiles over their channels, to target_ptr (8) and (8) `between` further; bf16 precision.

    even, odd, lower, last: `sum_operands()`. Needs compute capability 8.0.
    """
    tl.static_assert(T == 8)
    operands = [first, second, even, odd, lower, last]
    sums = tl.inline_asm_elementwise(_WARP_SUMS, _REGISTERS, operands, tl.float32, True, 8)
    lane = tl.arange(0, LANES)[None, None, :]
    place = target_ptr + lane % 4 * between + lane // 4
    tl.store(place, row_of(sums, 0, T).to(target_ptr.dtype.element_ty), mask=lane % 4 < 2)


@triton.jit
def store_sums(target_ptr, between, first, second, T: tl.constexpr, PRECISION: tl.constexpr):
    """The same for (T, 1, 32) tiles in any precision, as one product with ones: (2 T, COLUMNS), every column the same.

    Staged through shared memory. For fp32 ("tf32x3") the upper bits of a value and the rest go in side by side, since
    tf32 keeps 11 bits, and ones need no third term.
    """
    both = tl.join(tl.sum(first, 1), tl.sum(second, 1))
    both = tl.reshape(tl.permute(both, (2, 0, 1)), (2 * T, LANES))
    if PRECISION == "tf32x3":
        upper = (both.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        both = tl.reshape(tl.join(upper, both - upper), (2 * T, 2 * LANES))
        sums = tl.dot(both, tl.full([2 * LANES, COLUMNS], 1.0, tl.float32), input_precision="tf32")
    else:
        sums = tl.dot(both, tl.full([LANES, COLUMNS], 1.0, tl.float32), input_precision=PRECISION)
    row = tl.arange(0, 2 * T)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    place = target_ptr + tl.where(row < T, row, row - T + between) + column * 0
    tl.store(place, sums.to(target_ptr.dtype.element_ty), mask=(column == 0) & (row >= 0))
