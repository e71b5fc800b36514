"""How the scan kernels walk over an image: directions, chunks, pixels and tiles.

A direction belongs to a group (an axis of an image: 0 rows, 1 columns; or a set of channels of a sequence, which has
rows only) and has a sense (0 forward, 1 reversed). The pixels of an axis are numbered by place, line after line; a
reversed direction visits the same places backwards. Nothing is copied: places become addresses as the walk goes on.

A line is cut into tiles of T places, the last of which may be shorter, and a direction into chunks of whole tiles.
"""

import os

import triton
import triton.language as tl

LANES = tl.constexpr(32)
# Bytes of a line of the L1 cache, and of a part of it that is read from memory.
LINE = tl.constexpr(128)
SECTOR = tl.constexpr(32)
# Places between fetching and loading in chunk_adjoints_kernel: the latency of device memory.
REACH = tl.constexpr(3)
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
def state_places(block, n, BE: tl.constexpr, N: tl.constexpr):
    """Places of states n (rows, 1, 1) of a block of channels in a (EB, N, lanes) buffer: (rows, S, lanes).

    With a block's channels last, moving from state to state is a constant offset.
    """
    lane = tl.arange(0, LANES)[None, None, :]
    part = block * (BE // LANES) + tl.arange(0, BE // LANES)[None, :, None]
    return part * (N * LANES) + n * LANES + lane


@triton.jit
def fetch(pointer):
    """Bring a line of memory into the L1 cache; nothing waits for it."""
    if not _INTERPRETED:
        address = pointer.to(tl.int64)
        tl.inline_asm_elementwise("prefetch.global.L1 [$1]; mov.u32 $0, 0;", "=r,l", [address], tl.int32, False, 1)


@triton.jit
def lines_ahead(
    x_ptr, dy_ptr, delta_ptr, bc_ptr, x_stride, delta_stride, bc_stride, BE: tl.constexpr, NB: tl.constexpr
):
    """(addresses (1, 1, lanes), bytes from pixel to pixel) of the memory that a warp reads for a pixel, for `fetch`.

    Eight lanes each for x, dy, delta (BE channels) and bc (NB values): up to 256 bytes in sectors of 32.
    """
    lane = tl.arange(0, LANES)[None, None, :]
    which = lane // 8
    X: tl.constexpr = x_ptr.dtype.element_ty.primitive_bitwidth // 8
    DELTA: tl.constexpr = delta_ptr.dtype.element_ty.primitive_bitwidth // 8
    start = tl.where(which == 0, x_ptr.to(tl.int64), dy_ptr.to(tl.int64))
    start = tl.where(which == 2, delta_ptr.to(tl.int64), tl.where(which == 3, bc_ptr.to(tl.int64), start))
    size = tl.where(which == 2, BE * DELTA, tl.where(which == 3, NB * 4, BE * X))
    stride = tl.where(which == 2, delta_stride * DELTA, tl.where(which == 3, bc_stride * 4, x_stride * X))
    return start + tl.minimum(lane % 8 * SECTOR, size - 1), stride.to(tl.int64)


@triton.jit
def fetch_run(pointer, size):
    """Fetch the first 4 KiB of `size` bytes, line by line."""
    lane = tl.arange(0, LANES)
    fetch(pointer.to(tl.int64) + tl.minimum(lane * LINE, size - 1))


@triton.jit
def some_pixels_ahead(pixel, along, sense, pixels):
    """About where the walk is in a few places' time; it may miss at the end of a line."""
    ahead = pixel + tl.where(sense == 1, -REACH, REACH) * along
    return tl.minimum(tl.maximum(ahead, 0), pixels - 1).to(tl.int64)


@triton.jit
def chunk_tiles(chunk, chunks, tile_count):
    """(first tile, number of tiles) of a chunk: even shares, so that none is empty while chunks <= tile_count."""
    low = chunk * tile_count // chunks
    return low, (chunk + 1) * tile_count // chunks - low


@triton.jit
def chunk_places(chunk, chunks, length, lines, T: tl.constexpr):
    """(first place, number of places) of a chunk."""
    tiles = tl.cdiv(length, T)
    low, count = chunk_tiles(chunk, chunks, lines * tiles)
    high = low + count
    first = low // tiles * length + low % tiles * T
    return first, high // tiles * length + high % tiles * T - first


@triton.jit
def walk_from(place, length, along, across):
    """(pixel, position in its line) of a place."""
    line = place // length
    position = place - line * length
    return line * across + position * along, position


@triton.jit
def walk_on(pixel, position, length, along, across, sense):
    """(pixel, position) of the next place in the direction's order."""
    position += 1 - 2 * sense
    pixel += tl.where(sense == 1, -along, along)
    turn = across - length * along  # zero along rows
    wraps = (position < 0) | (position == length)
    pixel += tl.where(wraps, tl.where(sense == 1, -turn, turn), 0)
    position = tl.where(wraps, tl.where(sense == 1, length - 1, 0), position)
    return pixel, position


@triton.jit
def wide(pixel, WIDE: tl.constexpr):
    """`pixel` in the integers that addresses are computed in: 64 bits only for images that need them."""
    return pixel.to(tl.int64) if WIDE else pixel


@triton.jit
def tile_pixels(tile, sense, length, along, across, EVEN: tl.constexpr, T: tl.constexpr):
    """(first pixel, offsets (T) from it, which of the T exist) of a tile, in the direction's order.

    One division per tile and none per pixel: the offsets are an affine map. EVEN: T divides every line.
    """
    tiles_per_line = tl.cdiv(length, T)
    line = tile // tiles_per_line
    start = (tile - line * tiles_per_line) * T
    t = tl.arange(0, T)
    step = tl.where(sense == 1, T - 1 - t, t)
    exists = tl.full([T], True, tl.int1) if EVEN else start + step < length
    return line * across + start * along, step * along, exists


@triton.jit
def _either(bits_1, bits_2):
    return bits_1 | bits_2


@triton.jit
def row_of(tile, index: tl.constexpr, T: tl.constexpr):
    """Row `index` of a (T, S, lanes) tile. The `or` of bits folds into a register; a sum with zeros would not."""
    chosen = (tl.arange(0, T) == index)[:, None, None]
    bits = tl.where(chosen, tile.to(tl.int32, bitcast=True), 0)
    return tl.reduce(bits, 0, _either, keep_dims=True).to(tl.float32, bitcast=True)
