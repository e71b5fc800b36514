"""The nodes of `mambair.ops.symbolic` in ONNX's standard operators: functions that take the nodes' place in a graph.

The algorithm is that of `mambair.ops.two_level`, under the same names: a `Scan` over the positions of all chunks at
once, one over the chunks, one over the positions again. A step of the first and the last takes several positions:
fewer and larger operators, which threads share better. PyTorch can translate its own loops, but takes seconds for every
scan of a network to do so, and not for an open number of images. The pixels are gathered in the order of all directions
before the loop, one copy for each, since OpenVINO's `Scan` cannot look them up from inside.

Shapes: B images, K groups or directions, M chunks, T positions of a chunk, S of them in a step, E channels, N states,
R rank of delta. States have a first dimension of 1, as what Split makes of a step's positions has.
"""

from typing import TYPE_CHECKING, NamedTuple

from mambair.ops.symbolic import DOMAIN, SELECTIVE, SS2D
from mambair.ops.two_level import FORGOTTEN, UNROLLED

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

PROJECT = """
        projected = MatMul(u, weights_here)
        parts = Constant<value_ints: ints = @parts>()
        dt, B, C = Split<axis = -1>(projected, parts)
        unbiased = MatMul(dt, dt_weights_here)"""
"""u (S, B, K, M, E) -> unbiased (S, B, K, M, E), B and C (S, B, K, M, N)."""

ADVANCE = """
        exponent_{i} = Mul(delta_{i}, A_here)
        decay_{i} = Exp(exponent_{i})
        remembered_{i} = Mul(decay_{i}, state_{i})
        new_{i} = Mul(input_{i}, B_{i})
        state_{next} = Add(remembered_{i}, new_{i})
        elapsed_{next} = Add(elapsed_{i}, delta_{i})
        found_{i} = MatMul(C_{i}, state_{next})"""
"""One position of all chunks."""

LACK = """
        forgetting_{i} = Mul(gone_{i}, A_there)
        bounded_{i} = Clip(forgetting_{i}, least)
        living_on_{i} = Exp(bounded_{i})
        lives_{i} = Mul(living_on_{i}, starts_there)
        lacked_{i} = MatMul(C_{i}, lives_{i})"""
"""What one position of all chunks lacked."""

SCAN = """
<opset_import: ["" : 18], domain: "{domain}">
{name} {attributes} ({inputs}) => (y, last)
{{
    zero = Constant<value = float[1] {{0.0}}>()
    single = Constant<value = int64[1] {{1}}>()
    row = Constant<value = int64[1] {{-2}}>()
    outermost = Constant<value = int64[1] {{0}}>()
    whole_least = Constant<value = float {{{least}}}>()
    {gather}
    places = Shape<start = 2, end = 5>({first})
    images_and_groups = Shape<start = 2, end = 4>({first})
    sides = Shape<start = 2>(A)
    channels = Shape<start = 3>(A)
    states_shape = Concat<axis = 0>(single, places, sides)
    state_shape = Concat<axis = 0>(single, images_and_groups, sides)
    row_shape = Concat<axis = 0>(single, places, single, channels)
    empty_states = Expand(zero, states_shape)
    empty_state = Expand(zero, state_shape)
    beginning = Expand(zero, row_shape)

    added, whole, {unused}, found, gone, Cs = Scan<num_scan_inputs = {count}, body = advance
        (float[] state_0, float[] elapsed_0, {constants_here}, {slices})
        => (float[] state_{steps}, float[] elapsed_{steps}, {constants_next},
            float[] found_now, float[] gone_now, float[] C_now)
    {{
        one = Constant<value = float[1] {{1.0}}>()
        to_row = Constant<value = int64[1] {{-2}}>()
        to_column = Constant<value = int64[1] {{-1}}>(){prepare}
        raw = Add(unbiased, bias_here){activation}
        input = Mul(delta, u)
        delta_rows = Unsqueeze(delta, to_row)
        input_rows = Unsqueeze(input, to_row)
        B_columns = Unsqueeze(B, to_column)
        C_rows = Unsqueeze(C, to_row)
        {each_delta} = Split<axis = 0, num_outputs = {steps}>(delta_rows)
        {each_input} = Split<axis = 0, num_outputs = {steps}>(input_rows)
        {each_B} = Split<axis = 0, num_outputs = {steps}>(B_columns)
        {each_C} = Split<axis = 0, num_outputs = {steps}>(C_rows){advance}
        found_now = Concat<axis = 0>({each_found})
        gone_now = Concat<axis = 0>({each_elapsed})
        C_now = Identity(C_rows)
        {passing}
    }}>(empty_states, beginning, {constants}, {scanned})

    whole_exponent = Mul(whole, A)
    whole_bounded = Clip(whole_exponent, whole_least)
    kept = Exp(whole_bounded)
    end, starts = Scan<num_scan_inputs = 2, scan_input_axes = [3, 3], scan_output_axes = [3], body = chain
        (float[] begun, float[] kept_now, float[] added_now) => (float[] ended, float[] start_now)
    {{
        living = Mul(kept_now, begun)
        ended = Add(living, added_now)
        start_now = Identity(begun)
    }}>(empty_state, kept, added)
    last = Squeeze(end, outermost)

    unused_A, unused_starts, completed = Scan<num_scan_inputs = 3, body = lack
        (float[] A_there, float[] starts_there, float[] found_there, float[] gone_there, float[] C_there)
        => (float[] A_then, float[] starts_then, float[] completed_there)
    {{
        least = Constant<value = float {{{least}}}>()
        {each_gone} = Split<axis = 0, num_outputs = {steps}>(gone_there)
        {each_C} = Split<axis = 0, num_outputs = {steps}>(C_there){lack}
        lacked = Concat<axis = 0>({each_lacked})
        completed_there = Add(found_there, lacked)
        A_then = Identity(A_there)
        starts_then = Identity(starts_there)
    }}>(A, starts, found, gone, Cs)
    y = Squeeze(completed, row)
}}"""
"""What a loop takes from outside goes through it as part of its state: OpenVINO's `Scan` sees nothing else."""


class Form(NamedTuple):
    """What one of the scans is made of."""

    inputs: tuple[str, ...]
    """In the node's order."""
    sequences: tuple[str, ...]
    """(T / S, S, B, K, M, ...), by the names of their parts in one step."""
    constants: tuple[str, ...]
    """Inputs that every step takes."""
    activation: str
    gather: str = ""
    prepare: str = ""
    attributes: str = ""


_SEQUENCES = ("u", "unbiased", "B", "C")
FORMS = {
    SS2D: Form(
        ("visited", "pixels", "weights", "dt_weights", "bias", "A"),
        ("u",),
        ("weights", "dt_weights", "bias", "A"),
        SOFTPLUS,
        gather="all_u = Gather(pixels, visited)",
        prepare=PROJECT,
        attributes="<parts>",
    ),
    SELECTIVE[True]: Form(
        ("all_u", "all_unbiased", "all_B", "all_C", "bias", "A"), _SEQUENCES, ("bias", "A"), SOFTPLUS
    ),
    SELECTIVE[False]: Form(
        ("all_u", "all_unbiased", "all_B", "all_C", "bias", "A"), _SEQUENCES, ("bias", "A"), AS_IT_IS
    ),
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

    def names(pattern: str, of: tuple[str, ...] = form.constants) -> str:
        return ", ".join(pattern.format(each) for each in of)

    positions = range(UNROLLED)
    each = {
        f"each_{name}": ", ".join(f"{name}_{i + (name == 'elapsed')}" for i in positions)
        for name in ("delta", "input", "B", "C", "found", "elapsed", "gone", "lacked")
    }
    return SCAN.format(
        **form._asdict() | {"inputs": ", ".join(form.inputs), "constants": names("{}")},
        **each,
        domain=DOMAIN,
        name=name,
        least=FORGOTTEN,
        first="all_u",
        count=len(form.sequences),
        steps=UNROLLED,
        advance="".join(ADVANCE.format(i=i, next=i + 1) for i in positions),
        lack="".join(LACK.format(i=i) for i in positions),
        scanned=names("all_{}", form.sequences),
        slices=names("float[] {}", form.sequences),
        constants_here=names("float[] {}_here"),
        constants_next=names("float[] {}_next"),
        unused=names("last_{}"),
        passing=names("{0}_next = Identity({0}_here)").replace(", ", "\n        "),
    )
