"""What attentive_scan adds to the kernels of the scan: moving rows, and prompts on the way to C and back.

Shapes: B batch, L places, D inner channels, R rank of delta, N states, T tokens, P = R + 2N.

    rows        (B L)     int32 or int64, the place of the image that comes at this place of the order, in all images
    projected   (B L, P)  dt, B, C of every place, of x's type
    prompts     (T, N)
    parts       (S, T, N) fp32 sums of the prompts' gradients over a share of the places
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["count"])
def move_rows_kernel(
    source_ptr, rows_ptr, target_ptr, count, stride, D,
    BACK: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """target[i] = source[rows[i]], contiguous rows of D values; BACK: target[rows[i]] = source[i].

    `stride` is that of the rows that are read.
    """
    i = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    mask = (i < count)[:, None] & (d < D)[None, :]
    other = tl.load(rows_ptr + i, mask=i < count, other=0).to(tl.int64)
    read = i if BACK else other
    written = other if BACK else i
    values = tl.load(source_ptr + read[:, None] * stride + d[None, :], mask=mask, other=0.0)
    tl.store(target_ptr + written[:, None] * D + d[None, :], values, mask=mask)


@triton.jit(do_not_specialize=["count"])
def add_prompts_kernel(
    projected_ptr, tokens_ptr, prompts_ptr, count, P, N, BR: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """projected[i, P - N + n] += prompts[tokens[i], n], in place."""
    i = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    n = tl.arange(0, BN)[None, :]
    mask = (i < count)[:, None] & (n < N)
    token = tl.load(tokens_ptr + i, mask=i < count, other=0)
    prompt = tl.load(prompts_ptr + token[:, None] * N + n, mask=mask, other=0.0).to(tl.float32)
    place = projected_ptr + i[:, None] * P + P - N + n
    C = tl.load(place, mask=mask, other=0.0).to(tl.float32) + prompt
    tl.store(place, C.to(projected_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["count", "share"])
def prompt_gradients_kernel(
    d_projected_ptr, tokens_ptr, parts_ptr, count, share, T, P, N,
    BR: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """parts[s, t] = the sum of the gradients of C over the places of share s whose token is t.

    A product with the choices as ones and zeros: without atomic additions, in the same order every time.
    """
    t = tl.program_id(1) * BT + tl.arange(0, BT)
    n = tl.arange(0, BN)
    start = tl.program_id(0).to(tl.int64) * share
    total = tl.zeros([BT, BN], tl.float32)
    for first in range(0, share, BR):
        i = start + first + tl.arange(0, BR)
        exists = (i < count) & (first + tl.arange(0, BR) < share)
        token = tl.load(tokens_ptr + i, mask=exists, other=-1).to(tl.int32)
        mask = exists[:, None] & (n < N)[None, :]
        d_C = tl.load(d_projected_ptr + i[:, None] * P + P - N + n[None, :], mask=mask, other=0.0)
        if PRECISION == "ieee":  # GPUs before 8.0, for which Triton 3.3 does not compile products of fp16
            d_C = d_C.to(tl.float32)
        chosen = (token[None, :] == t[:, None]).to(d_C.dtype)
        total = tl.dot(chosen, d_C, total, input_precision=PRECISION)
    place = (tl.program_id(0) * T + t[:, None]) * N + n[None, :]
    tl.store(parts_ptr + place, total, mask=(t < T)[:, None] & (n < N)[None, :])
