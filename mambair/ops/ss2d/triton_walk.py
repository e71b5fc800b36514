"""How the scan kernels walk over an image: directions, chunks, pixels and tiles.

A direction belongs to a group (an axis of an image: 0 rows, 1 columns; or a set of channels of a sequence, which has
rows only) and has a sense (0 forward, 1 reversed). The pixels of an axis are numbered by place, line after line; a
reversed direction visits the same places backwards. Nothing is copied: places become addresses as the walk goes on.

A line is cut into tiles of T places, the last of which may be shorter, and a direction into chunks of whole tiles.
EVEN: T divides every line.
"""

import os

import triton
import triton.language as tl

LANES = tl.constexpr(32)
# Bytes of a line of the L1 cache.
LINE = tl.constexpr(128)
# Arguments of the scanning kernels that the compiler must not look at. Where it knows that a pixel's channels begin at
# a multiple of 16, it gives neighbouring ones to one thread, and values then move between threads: twice the
# instructions. Sizes of images would only make it compile the same code again for other photos.
UNSPECIALIZED = ["E", "P", "R", "chunks", "height", "width", "pixel_stride", "group_stride", "part_stride"]
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def line_geometry(group, height, width, IMAGE: tl.constexpr):
    """(length of a line, number of lines, pixels from place to place, pixels from line to line) of a group."""
    columns = (group == 1) & IMAGE
    length = tl.where(columns, height, width)
    lines = tl.where(columns, width, height)
    return length, lines, tl.where(columns, width, 1), tl.where(columns, 1, width)


@triton.jit
def direction(slot, first_group, groups, G):
    """(group, sense, number k) of direction `slot` of a launch, which treats `groups` groups, forward senses first."""
    sense = slot // groups
    group = first_group + slot % groups
    return group, sense, group + sense * G


@triton.jit
def block_channels(block, E, BE: tl.constexpr):
    """(channel numbers (1, S, lanes), which of them exist) of a block of BE = S * lanes channels; lanes: 32.

    Lanes are the threads of a warp, and a program is one warp. In a (N, S, lanes) or (T, S, lanes) tile a thread then
    owns all states or places of its S channels: sums and scans over them need neither shuffles nor shared memory.
    """
    lane = tl.arange(0, LANES)[None, None, :]
    e = block * BE + tl.arange(0, BE // LANES)[None, :, None] * LANES + lane
    return e, e < E


@triton.jit
def state_places(block, n, BE: tl.constexpr, ROWS: tl.constexpr):
    """Places of the rows n (rows, 1, 1) of a block of channels in a (EB, ROWS, lanes) buffer: (rows, S, lanes).

    With a block's channels last, moving from state to state is a constant offset.
    """
    lane = tl.arange(0, LANES)[None, None, :]
    part = block * (BE // LANES) + tl.arange(0, BE // LANES)[None, :, None]
    return part * (ROWS * LANES) + n * LANES + lane


@triton.jit
def fetch(pointer):
    """Bring a line of memory into the L1 cache; nothing waits for it."""
    if not _INTERPRETED:
        address = pointer.to(tl.int64)
        tl.inline_asm_elementwise("prefetch.global.L1 [$1]; mov.u32 $0, 0;", "=r,l", [address], tl.int32, False, 1)


@triton.jit
def fetch_run(pointer, size):
    """Fetch the first 4 KiB of `size` bytes, line by line."""
    lane = tl.arange(0, LANES)
    fetch(pointer.to(tl.int64) + tl.minimum(lane * LINE, size - 1))


@triton.jit
def chunk_tiles(chunk, chunks, tile_count):
    """(first tile, number of tiles) of a chunk: even shares, so that none is empty while chunks <= tile_count."""
    share = tile_count // chunks
    longer = tile_count - share * chunks
    return chunk * share + tl.minimum(chunk, longer), share + tl.where(chunk < longer, 1, 0)


@triton.jit
def places_of_tiles(tile, sense, length, lines, along, across, T: tl.constexpr):
    """(pixels (tiles, T), which of them exist) of the tiles (tiles), in the direction's order."""
    tiles_per_line = tl.cdiv(length, T)
    line = tile // tiles_per_line
    t = tl.arange(0, T)[None, :]
    place = ((tile - line * tiles_per_line) * T)[:, None] + tl.where(sense == 1, T - 1 - t, t)
    return line[:, None] * across + place * along, (place < length) & (line < lines)[:, None]


@triton.jit
def _either(bits_1, bits_2):
    return bits_1 | bits_2


@triton.jit
def first_tile(low, count, turn, length, WIDE: tl.constexpr, T: tl.constexpr):
    """(number, line, place in the line) of the tile that a walk over `count` tiles from `low` on begins with.

    turn: 1 for a walk to higher tiles, -1 for one to lower tiles. WIDE: places need 64 bits.
    """
    tiles_per_line = tl.cdiv(length, T)
    tile = tl.where(turn == 1, low, low + count - 1)
    line = tile // tiles_per_line
    start = (tile - line * tiles_per_line) * T
    return tile.to(tl.int64), line.to(tl.int64) if WIDE else line, start


@triton.jit
def next_tile(line, start, turn, length, T: tl.constexpr):
    """(line, place in the line) of the tile that a walk comes to next."""
    start += turn * T
    over = (start < 0) | (start >= length)
    opposite = tl.where(turn == 1, 0, (tl.cdiv(length, T) - 1) * T)
    return tl.where(over, line + turn, line), tl.where(over, opposite, start)


@triton.jit
def first_pixel(line, start, sense, along, across, T: tl.constexpr):
    """The pixel of a tile that its direction comes to first."""
    return line * across + (start + tl.where(sense == 1, T - 1, 0)) * along


@triton.jit
def exists_at(t: tl.constexpr, start, sense, length, EVEN: tl.constexpr, T: tl.constexpr):
    """Whether a tile's place t, in the direction's order, is on its line."""
    return True if EVEN else start + tl.where(sense == 1, T - 1 - t, t) < length


@triton.jit
def load_rows(pointer, step, mask, start, sense, length, EVEN: tl.constexpr, T: tl.constexpr):
    """T tiles, one a place, `step` apart: all are on their way before the first is used; zeros where there is none.

    A pointer that moves costs two instructions a place; computed from the place's number, four to six.
    """
    rows = ()
    for t in tl.static_range(T):
        rows += (tl.load(pointer, mask=mask & exists_at(t, start, sense, length, EVEN, T), other=0.0),)
        pointer += step
    return rows


@triton.jit
def load_tile(pointer, step, mask, start, sense, length, EVEN: tl.constexpr, T: tl.constexpr):
    """The same as one (T, S, lanes) tile, fp32."""
    rows = load_rows(pointer, step, mask, start, sense, length, EVEN, T)
    tile = tl.broadcast_to(rows[0].to(tl.float32), [T, rows[0].shape[1], LANES])
    for t in tl.static_range(1, T):
        tile = tl.where((tl.arange(0, T) == t)[:, None, None], rows[t].to(tl.float32), tile)
    return tile


@triton.jit
def store_tile(pointer, step, tile, mask, start, sense, length, EVEN: tl.constexpr, T: tl.constexpr):
    """Undoes `load_tile`."""
    for t in tl.static_range(T):
        row = row_of(tile, t, T).to(pointer.dtype.element_ty)
        tl.store(pointer, row, mask=mask & exists_at(t, start, sense, length, EVEN, T))
        pointer += step


@triton.jit
def row_of(tile, index: tl.constexpr, T: tl.constexpr):
    """Row `index` of a (T, S, lanes) tile. The `or` of bits folds into a register; a sum with zeros would not."""
    chosen = (tl.arange(0, T) == index)[:, None, None]
    bits = tl.where(chosen, tile.to(tl.int32, bitcast=True), 0)
    return tl.reduce(bits, 0, _either, keep_dims=True).to(tl.float32, bitcast=True)


@triton.jit
def reversed_rows(tile, T: tl.constexpr):
    """The rows of a (T, S, lanes) tile in reverse: registers with other names. Triton 3.3's `flip` is for last axes."""
    turned = tile
    for t in tl.static_range(T):
        turned = tl.where((tl.arange(0, T) == t)[:, None, None], row_of(tile, T - 1 - t, T), turned)
    return turned


@triton.jit
def bc_columns(N: tl.constexpr, BN: tl.constexpr):
    """(columns (1, 2 BN) of B and C in a place's 2N values of them, which of them exist): a value per lane.

    The same values in every lane would take 32 times the registers.
    """
    column = tl.arange(0, 2 * BN)[None, :]
    return column // BN * N + column % BN, column % BN < N


@triton.jit
def widened(value):
    """In fp32. Widened as usual, the compiler would do it behind `to_all_lanes`, for all values in all lanes."""
    if value.dtype == tl.float32 or _INTERPRETED:
        return value.to(tl.float32)
    if value.dtype == tl.bfloat16:
        upper: tl.constexpr = "{ .reg .b16 zero; mov.b16 zero, 0; mov.b32 $0, {zero, $1}; }"
        return tl.inline_asm_elementwise(upper, "=f,h", [value], tl.float32, True, 1)
    return tl.inline_asm_elementwise("cvt.f32.f16 $0, $1;", "=f,h", [value], tl.float32, True, 1)


@triton.jit
def to_all_lanes(bc, BN: tl.constexpr):
    """(B, C), each (BN, 1, 1) in fp32, of a place's `bc_columns`; they pass through shared memory to every lane."""
    B, C = tl.split(tl.permute(tl.reshape(widened(bc), (2, BN)), (1, 0)))
    return B[:, None, None], C[:, None, None]
