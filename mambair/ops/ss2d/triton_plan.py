"""How the scans of the Triton kernels are cut up: tiles, blocks of channels, chunks, and the launches over them.

Shapes: B batch, L = H W pixels, K = G groups x senses directions, E channels of a group, N states, R rank of delta,
P = R + 2N. An image has one group per axis, all groups reading the same channels; a sequence has one group per set of
channels that share B and C, and one sense.
"""

from dataclasses import dataclass

import torch
import triton

from mambair.ops.launching import Layout

WARP = 32
# A program is one warp. Nothing to pipeline: staging loads through shared memory only costs registers.
ONE_WARP = {"num_warps": 1, "num_stages": 1}
# Places whose states a thread of gradients_kernel holds at once. 16 took as long on an H100, with twice the registers.
TILE = 8
# (tiles, warps) of a program that brings B and C into the directions' order, and of one that brings gradients back.
ORDER_TILES, GATHER_TILES = (8, 4), (2, 2)
# Registers per thread of the forward scan: with two channels per thread; with one; with one and few states; with more
# states than any network here has.
REGISTERS = {"two": 128, "one": 80, "few": 64, "many": 255}
# Of the kernels of the backward pass on half-precision inputs: 16 warps fit on a multiprocessor.
BACKWARD_REGISTERS = 128
FEW_STATES, MANY_STATES = 12, 16
# Of a multiprocessor, per thread of a warp; its four parts hold a quarter of the warps each.
RESIDENT_REGISTERS = 2048
# A shorter chunk would spend more on its saved states than on its pixels.
MIN_CHUNK_PIXELS = 64
# Warps of a wave end at different times, and then their places stand empty: several waves are better than one, up to
# MOST_WAVES, as long as chunks have GOOD_CHUNK_PIXELS. With four a classic image of 256 x 256 takes 1.19 ms of 1.27.
GOOD_CHUNK_PIXELS, MOST_WAVES = 180, 4
# Offsets inside one image above this need 64-bit integers.
NARROW = 2**31 - 1


def blocks_of(channels: int, block: int) -> int:
    """Blocks that hold so many channels."""
    return triton.cdiv(channels, block)


@dataclass(frozen=True)
class ScanShape:
    """What is scanned. `delta_given`: delta is read in full (a sequence), instead of projected from rank R."""

    batch: int
    height: int
    width: int
    channels: int
    groups: int
    senses: int
    states: int
    rank: int
    image: bool
    delta_given: bool = False
    softplus: bool = True

    @property
    def directions(self) -> int:
        return self.groups * self.senses

    @property
    def projections(self) -> int:
        return self.rank + 2 * self.states

    def even(self, tile: int) -> bool:
        """Whether tiles of this length fill every line."""
        return self.width % tile == 0 and (self.groups == 1 or not self.image or self.height % tile == 0)

    @property
    def pixel_stride(self) -> int:
        return self.channels if self.image else self.channels * self.groups

    @property
    def group_stride(self) -> int:
        return 0 if self.image else self.channels

    def axis_tiles(self, tile: int) -> tuple[int, ...]:
        """Number of tiles along rows and, if columns are scanned, along columns."""
        rows = self.height * triton.cdiv(self.width, tile)
        columns = self.width * triton.cdiv(self.height, tile)
        return (rows, columns) if self.image and self.groups > 1 else (rows,)


@dataclass(frozen=True)
class Plan:
    """How a scan is cut: places per tile, channels per program (a warp), chunks; and registers per thread at most."""

    tile: int
    block: int
    chunks: int
    registers: int
    backward_registers: int


def _kind(shape: ScanShape) -> str:
    """The key of a scan in REGISTERS."""
    if shape.states > MANY_STATES:
        return "many"
    # Two channels per thread share the loads of B and C, where that leaves no more threads without a channel.
    if blocks_of(shape.channels, 2 * WARP) * 2 == blocks_of(shape.channels, WARP):
        return "two"
    return "few" if shape.states <= FEW_STATES else "one"


def _wave(registers: int, programs: int, processors: int) -> float:
    """Chunks of so many programs each that run at once, with so many registers a thread."""
    return processors * (RESIDENT_REGISTERS // registers // 4 * 4) / programs


def make_plan(shape: ScanShape, processors: int) -> Plan:
    """Chunks for whole waves of a GPU of so many multiprocessors, forward and backward, and no more than that needs.

    Saved states and parts of sums grow with their number; a wave that is not full takes as long as a full one.
    """
    kind = _kind(shape)
    block = 2 * WARP if kind == "two" else WARP
    registers = REGISTERS[kind]
    backward = REGISTERS["many"] if kind == "many" else BACKWARD_REGISTERS
    at_once = shape.senses if shape.image else shape.directions  # backward, axes run one after the other
    wave = max(
        _wave(registers, blocks_of(shape.channels, block) * shape.batch * shape.directions, processors),
        _wave(backward, blocks_of(shape.channels, WARP) * shape.batch * at_once, processors),
    )
    pixels = shape.height * shape.width
    fewest = max(1, min(MOST_WAVES, int(pixels / (wave * GOOD_CHUNK_PIXELS))))
    full = (count for count in range(fewest, fewest + 8) if int(count * wave) >= max(1, 0.9 * count * wave))
    chunks = int(next(full, fewest + 7) * wave)
    chunks = max(1, min(chunks, pixels // MIN_CHUNK_PIXELS, *shape.axis_tiles(TILE)))
    return Plan(tile=TILE, block=block, chunks=chunks, registers=registers, backward_registers=backward)


def plan_for(shape: ScanShape, device: torch.device) -> Plan:
    """The plan for this device; the interpreter gets that of an H100."""
    cuda = device.type == "cuda" and torch.cuda.is_available()
    return make_plan(shape, torch.cuda.get_device_properties(device).multi_processor_count if cuda else 132)


def kept_bytes(shape: ScanShape, device: torch.device) -> int:
    """Size of what `scan_forward` keeps for `scan_backward`: states that enter the chunks, and their sums of delta."""
    return kept_layout(shape, device).size


def kept_layout(shape: ScanShape, device: torch.device) -> Layout:
    """states (B, C, K, EB, N, lanes) and sums (B, C, K, EB, lanes), fp32."""
    chunks = (shape.batch, plan_for(shape, device).chunks, shape.directions, blocks_of(shape.channels, WARP))
    return Layout(states=((*chunks, shape.states, WARP), torch.float32), sums=((*chunks, WARP), torch.float32))


@dataclass(frozen=True)
class Launch:
    """The directions of one launch: both senses of `groups` groups from `first` on."""

    shape: ScanShape
    plan: Plan
    first: int
    groups: int

    @property
    def slots(self) -> int:
        return self.groups * self.shape.senses

    @property
    def which(self) -> tuple[int, int]:
        return self.first, self.groups

    @property
    def pixels(self) -> int:
        return self.shape.batch * self.shape.height * self.shape.width

    @property
    def tiles(self) -> int:
        return max(self.shape.axis_tiles(self.plan.tile))

    @property
    def channel_blocks(self) -> int:
        return blocks_of(self.shape.channels, WARP)

    @property
    def padded_channels(self) -> int:
        return self.channel_blocks * WARP

    def image_sizes(self) -> tuple[int, int, int, int]:
        return self.shape.height, self.shape.width, self.shape.pixel_stride, self.shape.group_stride

    def scan_numbers(self) -> tuple[int, ...]:
        """P, R, K, G and the number of chunks, as the kernels take them that go place by place."""
        shape = self.shape
        return shape.projections, shape.rank, shape.directions, shape.groups, self.plan.chunks

    def tile_grid(self, tiles: int) -> tuple[int, int, int]:
        """Of a kernel that brings B and C into the directions' order or back, so many tiles a program."""
        return blocks_of(self.tiles, tiles), self.slots, self.shape.batch

    def tile_numbers(self) -> tuple[int, ...]:
        """The integers that they take first."""
        shape = self.shape
        return (
            shape.height, shape.width, shape.projections, shape.rank, shape.states, shape.directions, shape.groups,
            *self.which, self.tiles,
        )  # fmt: skip

    def tile_options(self, tiles: int, warps: int) -> dict:
        """Its compile-time arguments."""
        shape = self.shape
        sizes = {"BP": triton.next_power_of_2(2 * shape.states), "BT": tiles, "T": self.plan.tile}
        return sizes | {"IMAGE": shape.image, "SENSES": shape.senses, "num_warps": warps}

    def scan_options(self) -> dict:
        """Compile-time arguments of all kernels that walk over the image."""
        shape = self.shape
        of_pixel = max(shape.pixel_stride, self.slots * shape.channels, shape.directions * shape.projections)
        offsets = shape.height * shape.width * of_pixel
        sizes = {"N": shape.states, "T": self.plan.tile, "EVEN": shape.even(self.plan.tile), "WIDE": offsets > NARROW}
        return sizes | {"IMAGE": shape.image, **ONE_WARP}

    def sequential_options(self, block: int, registers: int) -> dict:
        """Those of the kernels that go place by place with all states in registers; `block`: channels per warp."""
        sizes = {"BN": triton.next_power_of_2(self.shape.states), "BE": block}
        return self.scan_options() | sizes | {"maxnreg": registers}

    def grid(self, block: int) -> tuple[int, int, int]:
        return blocks_of(self.shape.channels, block), self.plan.chunks, self.shape.batch * self.slots
