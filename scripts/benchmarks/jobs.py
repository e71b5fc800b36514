"""What is measured with whole networks on a GPU: the work, who does it in which ways, and the project's limits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from benchmarks.networks import CLASSIC, LIGHT, SWINIR_CLASSIC, SWINIR_LIGHT, UNET, V2_BASE, V2_LIGHT, build_swinir
from benchmarks.timing import MEBIBYTE
from mambair.archs import build_network

EAGER, COMPILED, GRAPH, BOTH = "eager", "compiled", "CUDA graph", "compiled + CUDA graph"
AS_IT_COMES = "as it comes"
"""A network that is built and called: it replays graphs by itself where its class says so. The others do not."""
ALL_WAYS = (EAGER, COMPILED, GRAPH, BOTH)
PUBLISHED_WAYS = (EAGER, GRAPH)
"""The published scan cannot be compiled: graphs break at it."""
OURS, PUBLISHED, SWINIR, SWINIR_SIZED = "MambaIR", "MambaIR, published scan", "SwinIR", "SwinIR, masks kept"
GIGABYTE = 1e9 / MEBIBYTE
HALF, FP32, TF32 = "half", "fp32", "fp32, TF32"
CLASSIC_256, CLASSIC_512 = "classic x2, 256x256", "classic x2, 512x512"
CLASSIC_1024 = "classic x2, 1024x1024 whole"
GROWING = ((CLASSIC_256, GRAPH), (CLASSIC_512, GRAPH), (CLASSIC_1024, EAGER))
"""Work of four times the pixels of that before it, and the way in which its growth is measured."""


@dataclass(frozen=True)
class Contender:
    """A network that does the work, and the ways in which it is run."""

    name: str
    build: Callable[[], nn.Module]
    backend: str | None
    """Of its scan; None for a network without one."""
    ways: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """Work for several contenders, with the project's limits for it."""

    name: str
    shape: tuple[int, int, int, int]
    precision: str
    contenders: tuple[Contender, ...]
    at_most_ms: float | None = None
    at_most_mebibytes: float | None = None
    scale: int = 2
    slow: bool = False
    published_ms: float | None = None
    """Of the published code on an H200, eagerly, with mamba-ssm's CUDA scan; and its peak of memory."""
    published_mebibytes: float | None = None


def _ours(options: dict, ways: tuple[str, ...] = ALL_WAYS) -> Contender:
    return Contender(OURS, partial(build_network, options), "triton", ways)


def _published(options: dict) -> Contender:
    return Contender(PUBLISHED, partial(build_network, options), "mamba_ssm", PUBLISHED_WAYS)


def _swinir(options: dict, ways: tuple[str, ...] = ALL_WAYS) -> Contender:
    return Contender(SWINIR, partial(build_swinir, options), None, ways)


def _swinir_sized(options: dict, size: tuple[int, int], ways: tuple[str, ...] = ALL_WAYS) -> Contender:
    return Contender(SWINIR_SIZED, partial(build_swinir, options, size), None, ways)


def training_jobs() -> tuple[Job, ...]:
    """Training steps; the classic one without TF32 in two ways only."""
    classic, light = (4, 3, 64, 64), (16, 3, 64, 64)
    of_classic = (_ours(CLASSIC), _swinir(SWINIR_CLASSIC), _published(CLASSIC))
    of_light = (_ours(LIGHT), _swinir(SWINIR_LIGHT), _published(LIGHT))
    of_unet = (_ours(UNET), _published(UNET))
    return (
        Job("classic x2, 4 x 64x64", classic, HALF, of_classic, 90, 6 * GIGABYTE),
        Job("light x2, 16 x 64x64", light, HALF, of_light, 65, 4 * GIGABYTE),
        Job("U-Net, 8 x 128x128", (8, 3, 128, 128), HALF, of_unet, 130, 9 * GIGABYTE, scale=1),
        Job("classic x2, 4 x 64x64", classic, TF32, of_classic, 140),
        Job("classic x2, 4 x 64x64", classic, FP32, (_ours(CLASSIC, (EAGER, BOTH)),)),
    )


def _plain(options: dict, swinir: dict) -> tuple[Contender, ...]:
    """The contenders as they are loaded, in everybody's own loop; ours also without graphs of its own."""
    published = Contender(PUBLISHED, partial(build_network, options), "mamba_ssm", (EAGER,))
    return (_ours(options, (AS_IT_COMES, EAGER)), _swinir(swinir, (EAGER,)), published)


def plain_inference_jobs() -> tuple[Job, ...]:
    """Images of growing size through networks as they are loaded."""
    light, classic = _plain(LIGHT, SWINIR_LIGHT), _plain(CLASSIC, SWINIR_CLASSIC)
    return (
        Job("light x2, 64x64", (1, 3, 64, 64), FP32, light, 15),
        Job("light x2, 64x64", (1, 3, 64, 64), HALF, light, 15),
        Job("light x2, 256x256", (1, 3, 256, 256), HALF, light, 18),
        Job("light x2, 512x512", (1, 3, 512, 512), HALF, light, 50),
        Job("classic x2, 64x64", (1, 3, 64, 64), HALF, classic, 24),
        Job("classic x2, 256x256", (1, 3, 256, 256), HALF, classic, 80),
    )


def plain_training_jobs() -> tuple[Job, ...]:
    """Training steps of networks as they are loaded."""
    light, classic = _plain(LIGHT, SWINIR_LIGHT), _plain(CLASSIC, SWINIR_CLASSIC)
    unet = (
        _ours(UNET, (AS_IT_COMES, EAGER)),
        Contender(PUBLISHED, partial(build_network, UNET), "mamba_ssm", (EAGER,)),
    )
    return (
        Job("light x2, 16 x 64x64", (16, 3, 64, 64), HALF, light, 80),
        Job("light x2, 16 x 64x64", (16, 3, 64, 64), TF32, light),
        Job("classic x2, 4 x 64x64", (4, 3, 64, 64), HALF, classic, 115),
        Job("classic x2, 4 x 64x64", (4, 3, 64, 64), TF32, classic),
        Job("U-Net, 8 x 128x128", (8, 3, 128, 128), HALF, unet, 150, scale=1),
    )


def inference_jobs() -> tuple[Job, ...]:
    """Restoring one image; SwinIR as its weights are loaded, and built for just this size.

    The classic network also at the sizes of GROWING, each in its way.
    """
    classic = (_ours(CLASSIC), _swinir(SWINIR_CLASSIC, (EAGER,)), _swinir_sized(SWINIR_CLASSIC, (256, 256)))
    light = (_ours(LIGHT), _swinir(SWINIR_LIGHT, (EAGER,)), _swinir_sized(SWINIR_LIGHT, (360, 640)))
    larger, largest = (_ours(CLASSIC, (way,)) for _, way in GROWING[1:])
    return (
        Job(CLASSIC_256, (1, 3, 256, 256), HALF, (*classic, _published(CLASSIC)), 75),
        Job("light x2, 360x640", (1, 3, 360, 640), HALF, (*light, _published(LIGHT)), 40),
        Job(CLASSIC_512, (1, 3, 512, 512), HALF, (larger,)),
        Job(CLASSIC_1024, (1, 3, 1024, 1024), HALF, (largest,), None, 80 * GIGABYTE, slow=True),
    )


Shape = tuple[int, int, int, int]
Contenders = tuple[Contender, ...]
Limits = tuple[float | None, float | None]


def _v2(options: dict) -> Contenders:
    """MambaIRv2 as a plain module and in a graph; compiled code on top of that takes longer."""
    return (_ours(options, (AS_IT_COMES, EAGER, GRAPH)), _published(options))


def _v2_plain(options: dict) -> Contenders:
    return (_ours(options, (AS_IT_COMES, EAGER)),)


def v2_training_jobs() -> tuple[Job, ...]:
    """Training steps of MambaIRv2, beside the published code's: its milliseconds and GB."""
    light, base = "v2 light x2, 16 x 64x64", "v2 base x2, 4 x 64x64"
    many, few = (16, 3, 64, 64), (4, 3, 64, 64)

    def job(name: str, shape: Shape, precision: str, who: Contenders, limits: Limits, ms: float, gb: float) -> Job:
        return Job(name, shape, precision, who, *limits, published_ms=ms, published_mebibytes=gb * GIGABYTE)

    return (
        job(light, many, HALF, _v2(V2_LIGHT), (60, 6 * GIGABYTE), 207, 14.7),
        job(base, few, HALF, _v2(V2_BASE), (110, 9 * GIGABYTE), 426, 18.9),
        job(light, many, TF32, _v2_plain(V2_LIGHT), (None, None), 204, 15.0),
        job(base, few, TF32, _v2_plain(V2_BASE), (None, None), 333, 25.1),
    )


def v2_inference_jobs() -> tuple[Job, ...]:
    """Restoring one image by MambaIRv2: limits, and the published code's milliseconds in bf16 and in fp32."""
    jobs = []
    for name, options, height, width, at_most, half, single in (
        ("v2 light x2, 64x64", V2_LIGHT, 64, 64, None, 58, 48),
        ("v2 light x2, 256x256", V2_LIGHT, 256, 256, 30, 108, 102),
        ("v2 light x2, 360x640", V2_LIGHT, 360, 640, 90, 359, 330),
        ("v2 base x2, 64x64", V2_BASE, 64, 64, None, 115, 97),
        ("v2 base x2, 256x256", V2_BASE, 256, 256, 110, 370, 419),
    ):
        shape = (1, 3, height, width)
        jobs.append(Job(name, shape, HALF, _v2(options), at_most, published_ms=half))
        jobs.append(Job(name, shape, FP32, _v2_plain(options), published_ms=single))
    return tuple(jobs)
