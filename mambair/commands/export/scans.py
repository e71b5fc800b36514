"""The nodes of `mambair.ops.symbolic` in ONNX's standard operators: functions that take the nodes' place in a graph.

The algorithm is that of `mambair.ops.two_level`, under the same names: a `Scan` over the positions of all chunks at
once, one over the chunks, one over the positions again. PyTorch can translate its own loops, but takes seconds for
every scan of a network to do so, and not for an open number of images; here the four directions are not copied either.

Shapes: B images, K groups or directions, M chunks, T positions of a chunk, E channels, N states, R rank of delta.
"""

from typing import TYPE_CHECKING, NamedTuple

from mambair.ops.symbolic import DOMAIN, SELECTIVE, SS2D
from mambair.ops.two_level import FORGOTTEN

if TYPE_CHECKING:
    import onnx

SOFTPLUS = """
        size = Abs(raw)
        opposite = Neg(size)
        small = Exp(opposite)
        rounded = Add(one, small)
        kept_of_small = Sub(rounded, one)
        lost = Sub(small, kept_of_small)
        correction = Div(lost, rounded)
        logarithm = Log(rounded)
        exact = Add(logarithm, correction)
        positive = Relu(raw)
        delta = Add(positive, exact)"""
"""log(1 + exp(raw)), as `two_level.softplus` has it."""

AS_IT_IS = """
        delta = Identity(raw)"""

GATHER_AND_PROJECT = """
        u = Gather(pixels, visited)
        projected = MatMul(u, weights)
        dt, B, C = Split<axis = -1>(projected, parts)
        unbiased = MatMul(dt, dt_weights)"""
"""Rows (B, K, M) of pixels (B L, E) -> u and unbiased (B, K, M, E), B and C (B, K, M, N)."""

SCAN = """
<opset_import: ["" : 18], domain: "{domain}">
{name} ({inputs}, bias, A) => (y, last)
{{
    zero = Constant<value = float[1] {{0.0}}>()
    one = Constant<value = float[1] {{1.0}}>()
    least = Constant<value = float[1] {{{least}}}>()
    single = Constant<value = int64[1] {{1}}>()
    to_row = Constant<value = int64[1] {{-2}}>()
    to_column = Constant<value = int64[1] {{-1}}>()
    places = Shape<start = 1, end = 4>({first})
    images_and_groups = Shape<start = 1, end = 3>({first})
    sides = Shape<start = 2>(A)
    channels = Shape<start = 3>(A)
    states_shape = Concat<axis = 0>(places, sides)
    state_shape = Concat<axis = 0>(images_and_groups, sides)
    row_shape = Concat<axis = 0>(places, single, channels)
    empty_states = Expand(zero, states_shape)
    empty_state = Expand(zero, state_shape)
    beginning = Expand(zero, row_shape)

    added, whole, found, gone, Cs = Scan<num_scan_inputs = {count}, body = advance (state, elapsed, {slices})
        => (next_state, next_elapsed, found_now, gone_now, C_now)
    {{{prepare}
        raw = Add(unbiased, bias){activation}
        input = Mul(delta, u)
        delta_row = Unsqueeze(delta, to_row)
        input_row = Unsqueeze(input, to_row)
        B_column = Unsqueeze(B, to_column)
        C_row = Unsqueeze(C, to_row)
        exponent = Mul(delta_row, A)
        decay = Exp(exponent)
        remembered = Mul(decay, state)
        new = Mul(input_row, B_column)
        next_state = Add(remembered, new)
        next_elapsed = Add(elapsed, delta_row)
        found_now = MatMul(C_row, next_state)
        gone_now = Identity(next_elapsed)
        C_now = Identity(C_row)
    }}>(empty_states, beginning, {scanned})

    whole_exponent = Mul(whole, A)
    whole_bounded = Max(whole_exponent, least)
    kept = Exp(whole_bounded)
    last, starts = Scan<num_scan_inputs = 2, scan_input_axes = [2, 2], scan_output_axes = [2], body = chain
        (begun, kept_now, added_now) => (ended, start_now)
    {{
        living = Mul(kept_now, begun)
        ended = Add(living, added_now)
        start_now = Identity(begun)
    }}>(empty_state, kept, added)

    completed = Scan<num_scan_inputs = 3, body = lack (found_here, gone_by, C_here) => (completed_now)
    {{
        forgetting = Mul(gone_by, A)
        bounded = Max(forgetting, least)
        living_on = Exp(bounded)
        lives = Mul(living_on, starts)
        lacked = MatMul(C_here, lives)
        completed_now = Add(found_here, lacked)
    }}>(found, gone, Cs)
    y = Squeeze(completed, to_row)
}}"""


class Form(NamedTuple):
    """What one of the scans is made of."""

    inputs: tuple[str, ...]
    """Without bias and A, which all have."""
    sequences: tuple[str, ...]
    """Inputs (T, B, K, M, ...), by the names of their parts at one position."""
    prepare: str
    activation: str


_SEQUENCES = ("u", "unbiased", "B", "C")
FORMS = {
    SS2D: Form(("pixels", "weights", "dt_weights", "parts"), ("visited",), GATHER_AND_PROJECT, SOFTPLUS),
    SELECTIVE[True]: Form((), _SEQUENCES, "", SOFTPLUS),
    SELECTIVE[False]: Form((), _SEQUENCES, "", AS_IT_IS),
}


def write_scans(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The graph with the scans' nodes replaced by what they consist of."""
    import onnx.inliner
    import onnx.parser

    for name in sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN}):
        model.functions.append(onnx.parser.parse_function(_scan(name, FORMS[name])))
    written = onnx.inliner.inline_local_functions(model)
    kept = [opset for opset in written.opset_import if opset.domain != DOMAIN]
    del written.opset_import[:]
    written.opset_import.extend(kept)
    return written


def _scan(name: str, form: Form) -> str:
    """The text of a function."""
    whole = [f"all_{each}" for each in form.sequences]
    return SCAN.format(
        domain=DOMAIN,
        name=name,
        inputs=", ".join((*whole, *form.inputs)),
        scanned=", ".join(whole),
        slices=", ".join(form.sequences),
        first=whole[0],
        count=len(whole),
        least=FORGOTTEN,
        prepare=form.prepare,
        activation=form.activation,
    )
