"""A vector of 16 float32 values for numba kernels, with the arithmetic that the scans need.

Kernels are written with explicit vectors because LLVM's own vectoriser does not get there: with plain loops over 16
channels it guards each loop against overlapping arrays and keeps every intermediate in memory, which was measured at
0.44 ns per state update on one core, against 0.10 ns with these. LLVM splits a vector into whatever registers the
processor has: one with AVX-512, two with AVX, four with NEON.
"""

import math
import operator

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
# Lanes of a sum over lanes that is not finished yet.
FOLDED = 4
LOG2_E = math.log2(math.e)
LN_2 = math.log(2.0)

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
# Lets a product and a sum become one fused operation. Nothing here assumes that NaN or infinity do not occur.
_FLAGS = ("contract", "nsz", "arcp")


class VectorType(types.Type):
    """The numba type of 16 float32 values in registers."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _FLOATS)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [float(types.float32(value))] * LANES)


def _call(builder, name: str, arguments: list, fastmath: tuple[str, ...] = ()):
    """Call the LLVM intrinsic `name` on vectors."""
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, arguments, fastmath=fastmath)


def _packed_pointer(context, builder, array_type, layout, indices, vectors):
    """Pointer to array[indices] where the last dimension is one of `vectors` long and the array contiguous."""
    assert array_type.layout == "C", "vectors lie side by side"
    sizes = cgutils.unpack_tuple(builder, layout.shape, array_type.ndim)
    place = indices[0]
    for position, size in zip(indices[1:], sizes[1:-1], strict=True):
        place = builder.add(builder.mul(place, size, flags=("nsw",)), position, flags=("nsw",))
    place = builder.mul(place, context.get_constant(types.intp, vectors.count), flags=("nsw",))
    return builder.bitcast(builder.gep(layout.data, [place], inbounds=True), vectors.as_pointer())


def _pointer(context, builder, array_type, array, index_type, index):
    """Pointer to the vector that begins at array[index]; a missing last index is 0.

    Without a last index the array is contiguous and its last dimension is one vector long. Said so, as a constant, all
    arrays that a loop goes through share one counter; with the strides they bring along, each kept one of its own and
    the backward pass over a chunk took 6 % longer.
    """
    indices = cgutils.unpack_tuple(builder, index, len(index_type))
    layout = context.make_array(array_type)(context, builder, array)
    if len(indices) < array_type.ndim:
        return _packed_pointer(context, builder, array_type, layout, indices, _FLOATS)
    pointer = cgutils.get_item_pointer(context, builder, array_type, layout, indices, wraparound=False)
    return builder.bitcast(pointer, _FLOATS.as_pointer())


@intrinsic
def load(typing_context, array, index):
    """16 values of a float32 array from array[index] on, along its last dimension, which must be contiguous.

    The last index may be left out: it is 0 then.
    """

    def codegen(context, builder, signature, arguments):
        array_type, index_type = signature.args
        pointer = _pointer(context, builder, array_type, arguments[0], index_type, arguments[1])
        return builder.load(pointer, align=4)

    return vector(array, index), codegen


@intrinsic
def store(typing_context, array, index, value):
    """Write 16 values to where `load` would read them."""

    def codegen(context, builder, signature, arguments):
        array_type, index_type, _ = signature.args
        pointer = _pointer(context, builder, array_type, arguments[0], index_type, arguments[1])
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@intrinsic
def broadcast(typing_context, scalar):
    """The vector with `scalar` in every lane."""

    def codegen(context, builder, signature, arguments):
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        scalar = context.cast(builder, arguments[0], signature.args[0], types.float32)
        first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(_INTEGERS, [0] * LANES))

    return vector(scalar), codegen


@intrinsic
def broadcast_at(typing_context, array, index):
    """The vector with array[index] in every lane; the index is not negative."""

    def codegen(context, builder, signature, arguments):
        array_type, index_type = signature.args
        indices = cgutils.unpack_tuple(builder, arguments[1], len(index_type))
        layout = context.make_array(array_type)(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, array_type, layout, indices, wraparound=False)
        first = builder.insert_element(
            ir.Constant(_FLOATS, ir.Undefined), builder.load(pointer), ir.Constant(ir.IntType(32), 0)
        )
        return builder.shuffle_vector(first, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTEGERS, [0] * LANES))

    return vector(array, index), codegen


def _define_operator(operation, instruction: str) -> None:
    @intrinsic
    def apply(typing_context, left, right):
        def codegen(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=_FLAGS)

        return vector(vector, vector), codegen

    @overload(operation)
    def overloaded(left, right):
        if left is vector and right is vector:
            return lambda left, right: apply(left, right)
        return None


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_operation, _instruction)


@intrinsic
def fma(typing_context, left, right, addend):
    """left * right + addend, fused where the processor can."""

    def codegen(context, builder, signature, arguments):
        return _call(builder, "fmuladd", list(arguments))

    return vector(vector, vector, vector), codegen


@intrinsic
def lane_sum(typing_context, value):
    """The sum of the 16 lanes, as a float32."""

    def codegen(context, builder, signature, arguments):
        scalar = ir.FloatType()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(scalar, [scalar, _FLOATS]), f"llvm.vector.reduce.fadd.v{LANES}f32"
        )
        zero = ir.Constant(scalar, -0.0)
        # "reassoc" allows a tree of additions; without it LLVM must add one lane after the other.
        return builder.call(function, [zero, arguments[0]], fastmath=("reassoc", *_FLAGS))

    return types.float32(vector), codegen


def _fold(builder, value):
    """Halves added to each other until FOLDED lanes are left."""
    while value.type.count > FOLDED:
        half = value.type.count // 2
        undefined = ir.Constant(value.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(
                value, undefined, ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(first, first + half)))
            )
            for first in (0, half)
        )
        value = builder.fadd(low, high, flags=_FLAGS)
    return value


@intrinsic
def add_folded(typing_context, array, index, value):
    """Add a vector, folded to FOLDED lanes, to array[index]; the array is contiguous, its last dimension FOLDED long.

    For sums over lanes that many vectors go into: they move a quarter of what whole vectors would.
    """

    def codegen(context, builder, signature, arguments):
        array_type, index_type, _ = signature.args
        indices = cgutils.unpack_tuple(builder, arguments[1], len(index_type))
        layout = context.make_array(array_type)(context, builder, arguments[0])
        folded = _fold(builder, arguments[2])
        pointer = _packed_pointer(context, builder, array_type, layout, indices, folded.type)
        builder.store(builder.fadd(builder.load(pointer, align=4), folded, flags=_FLAGS), pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


# 2**f = 1 + f q(f) on [-1/2, 1/2]; minimax fit of q, relative error of 2**f below 2e-9, exact at f = 0 so that decays
# close to 1 are as accurate as float32 allows.
_EXP2 = (
    0.6931472028552187,
    0.24022647913620188,
    0.05550332470752721,
    0.0096184373575246,
    0.0013398874574092334,
    0.0001535336231587546,
)
# Adding 1.5 * 2**23 rounds to an integer and leaves that integer in the low bits.
_ROUNDER = 12582912.0
_MANTISSA_BITS = 23


# Where the exponent's bits read 0 and infinity.
_LOWEST, _HIGHEST = -127.0, 128.0


def _bound(builder, x, comparison, bound):
    """x, or `bound` where x compares so with it; an ordered comparison lets NaN through."""
    bound = _constant(bound)
    return builder.select(builder.fcmp_ordered(comparison, x, bound), bound, x)


def _power_of_two(builder, x):
    """2**x for x from _LOWEST to _HIGHEST."""
    rounder = _constant(_ROUNDER)
    shifted = builder.fadd(x, rounder)
    fraction = builder.fsub(x, builder.fsub(shifted, rounder))
    power = _constant(_EXP2[-1])
    for coefficient in (*_EXP2[-2::-1], 1.0):
        power = _call(builder, "fmuladd", [power, fraction, _constant(coefficient)])
    exponent = builder.shl(builder.bitcast(shifted, _INTEGERS), ir.Constant(_INTEGERS, [_MANTISSA_BITS] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(power, _INTEGERS), exponent), _FLOATS)


@intrinsic
def exp2(typing_context, value):
    """2**value to about 1e-7 relative: 0 below -127, infinity from 128, NaN stays."""

    def codegen(context, builder, signature, arguments):
        below = _bound(builder, arguments[0], ">", _HIGHEST)
        return _power_of_two(builder, _bound(builder, below, "<", _LOWEST))

    return vector(vector), codegen


@intrinsic
def exp2_of_negative(typing_context, value):
    """`exp2` of what is known to be at most 0 but for roundings: without the upper bound."""

    def codegen(context, builder, signature, arguments):
        return _power_of_two(builder, _bound(builder, arguments[0], "<", _LOWEST))

    return vector(vector), codegen


@intrinsic
def positive_part(typing_context, value):
    """max(value, 0); NaN stays."""

    def codegen(context, builder, signature, arguments):
        (x,) = arguments
        return builder.select(builder.fcmp_ordered("<", x, _constant(0.0)), _constant(0.0), x)

    return vector(vector), codegen


@intrinsic
def maximum(typing_context, left, right):
    """The larger value in each lane; where one is NaN, the other."""

    def codegen(context, builder, signature, arguments):
        return _call(builder, "maxnum", list(arguments))

    return vector(vector, vector), codegen


@intrinsic
def absolute(typing_context, value):
    """|value|"""

    def codegen(context, builder, signature, arguments):
        return _call(builder, "fabs", list(arguments))

    return vector(vector), codegen


@njit(error_model="numpy")
def sigmoid(x):
    """1 / (1 + exp(-x))"""
    one = broadcast(1.0)
    return one / (one + exp2(x * broadcast(-LOG2_E)))


# atanh(s) / s as a polynomial in s**2 for s in [0, 1/3]; minimax, relative error below 4e-9.
_ATANH_1 = 0.33333157340345654
_ATANH_2 = 0.20012455209513277
_ATANH_3 = 0.13980299974412516
_ATANH_4 = 0.14089175455365924


@njit(error_model="numpy")
def softplus(x):
    """log(1 + exp(x)) without overflow and with small results as accurate as large ones.

    It is max(x, 0) + log(1 + e) with e = exp(-|x|) <= 1, and log(1 + e) = 2 atanh(e / (2 + e)).
    """
    e = exp2_of_negative(absolute(x) * broadcast(-LOG2_E))
    s = e / (broadcast(2.0) + e)
    s2 = s * s
    series = fma(
        fma(fma(broadcast(_ATANH_4), s2, broadcast(_ATANH_3)), s2, broadcast(_ATANH_2)), s2, broadcast(_ATANH_1)
    )
    return fma(s + s, fma(series, s2, broadcast(1.0)), positive_part(x))


@intrinsic
def transpose(typing_context, source, source_row, source_column, target, target_row, target_column):
    """target[r + j, c + i] = source[p + i, q + j] for a tile of 16 x 16, between 2-D float32 arrays.

    The last dimension of both must be contiguous. Four rounds of shuffles, each exchanging the halves of pairs of
    rows, instead of 256 scalar copies with a stride.
    """

    def codegen(context, builder, signature, arguments):
        def rows(position: int) -> list:
            array_type, array = signature.args[position], arguments[position]
            layout = context.make_array(array_type)(context, builder, array)
            row, column = arguments[position + 1], arguments[position + 2]
            pointers = []
            for i in range(LANES):
                indices = [builder.add(row, context.get_constant(types.intp, i)), column]
                pointer = cgutils.get_item_pointer(context, builder, array_type, layout, indices, wraparound=False)
                pointers.append(builder.bitcast(pointer, _FLOATS.as_pointer()))
            return pointers

        values = [builder.load(pointer, align=4) for pointer in rows(0)]
        half = 1
        while half < LANES:
            upper = ir.Constant(_INTEGERS, [j if not j & half else LANES + j - half for j in range(LANES)])
            lower = ir.Constant(_INTEGERS, [j + half if not j & half else LANES + j for j in range(LANES)])
            for i in range(LANES):
                if not i & half:
                    first, second = values[i], values[i + half]
                    values[i] = builder.shuffle_vector(first, second, upper)
                    values[i + half] = builder.shuffle_vector(first, second, lower)
            half *= 2
        for value, pointer in zip(values, rows(3), strict=True):
            builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    intp = types.intp
    return types.void(source, intp, intp, target, intp, intp), codegen
