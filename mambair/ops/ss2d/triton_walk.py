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
# Bytes of a line of the L1 cache.
LINE = tl.constexpr(128)
# Arguments of the scanning kernels that the compiler must not look at. Where it knows that a pixel's channels begin at
# a multiple of 16, it gives neighbouring ones to one thread, and values then move between threads: twice the
# instructions. Sizes of images would only make it compile the same code again for other photos.
UNSPECIALIZED = ["E", "chunks", "height", "width", "pixel_stride", "group_stride", "part_stride"]
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
def tile_of_chunk(
    i, low, count, sense, length, along, across, EVEN: tl.constexpr, WIDE: tl.constexpr, T: tl.constexpr
):  # fmt: skip
    """(number, places (T) in units of pixels, which of them exist (T)) of the i-th tile that a chunk comes to."""
    tile = tl.where(sense == 1, low + count - 1 - i, low + i)
    base, pixels, exists = tile_pixels(tile, sense, length, along, across, EVEN, T)
    return tile, wide(base + pixels, WIDE), exists


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
def load_bc(bc_ptr, places, exists, NP: tl.constexpr, BN: tl.constexpr):
    """(T, 2 BN): B and C of the T pixels of a tile, whose offsets are `places` (T); zeros where there are none.

    A value per lane, so that a tile's are on their way at once: the same values in every lane would take 32 times the
    registers. `multiple_of` hides that four could be loaded together: a thread would then not own whole columns.
    """
    column = tl.arange(0, 2 * BN)[None, :]
    pointers = tl.multiple_of(bc_ptr + places[:, None] + (column // BN * NP + column % BN), [1, 1])
    return tl.load(pointers, mask=exists[:, None] & (column % BN < NP), other=0.0)


@triton.jit
def bc_of(bc, index: tl.constexpr, T: tl.constexpr, BN: tl.constexpr):
    """(B, C), each (BN, 1, 1), of pixel `index` of the tile; they pass through shared memory to every lane."""
    chosen = (tl.arange(0, T) == index)[:, None]
    bits = tl.where(chosen, bc.to(tl.int32, bitcast=True), 0)
    row = tl.reduce(bits, 0, _either).to(tl.float32, bitcast=True)
    B, C = tl.split(tl.permute(tl.reshape(row, (2, BN)), (1, 0)))
    return B[:, None, None], C[:, None, None]
