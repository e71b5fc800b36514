"""Restoring images of any kind with a trained network: the object that `mambair.load_model` returns.

Shapes: B images, C channels, H x W pixels of the low-quality input, s the scale of the network.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from mambair.archs.network import traits_of
from mambair.archs.replay import paused
from mambair.errors import UserError
from mambair.inference.edges import bled, within_neighbours
from mambair.inference.ensemble import self_ensemble
from mambair.inference.graphs import GraphedForward
from mambair.inference.image_types import group_by_size, joined, unpack_image
from mambair.inference.memory import MIN_TILE, TilePlan, is_out_of_memory
from mambair.inference.onnx_network import ONNX_EXTENSION, OnnxNetwork
from mambair.inference.tiling import TileRule, restore_tiled
from mambair.options.plugins import load_installed_plugins
from mambair.runtime.devices import autocast_dtype
from mambair.weights.loading import load_network
from mambair.weights.sources import check_purpose, find_weights

logger = logging.getLogger(__name__)

Tile = TileRule | Literal["auto"]

GRAY, COLOR = 1, 3

# Of a result: 16 megapixels in colour, which take 200 MB. The free memory is for larger ones.
NEAR_VALUES = 3 * 2**24


class Restorer:
    """A network with all that is needed to restore images of any type, size, depth and channel count.

    Args:
        network: maps (B, C, H, W) in [0, 1] to (B, C, s*H, s*W); its attributes `scale`, `in_channels` (1 or 3)
            and `size_multiple` are read, and if it has them `hyperparameters`, for its width.
        device: where to compute.
        amp: none, auto, bf16 or fp16; auto is bf16 on GPUs that compute in it. Half precision changes 8-bit results
            by about one grey level here and there, and is coarser than a 16-bit image.
        tile: "auto" restores the image whole if it fits into the free memory, else in the largest tiles that do;
            None always restores it whole; a number is the side of the tiles in input pixels; "published" tiles
            as the published test code does.
        overlap: pixels that neighbouring tiles share; default `mambair.inference.tiling.default_overlap`.
        ensemble: average over the eight flips and transpositions (MambaIR+ in the paper; eight times slower).
        batch: images of equal size, or tiles, that go through the network together.
        compile: torch.compile, and CUDA graphs for images of every size: slow on the first images of each size, faster
            afterwards. Without it, small images and tiles are replayed as CUDA graphs from the third of a size on.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        amp: str = "none",
        tile: Tile = "auto",
        overlap: int | None = None,
        ensemble: bool = False,
        batch: int = 1,
        compile: bool = False,
    ) -> None:
        check_tile(tile, overlap)
        if batch < 1:
            raise UserError(f"batch: {batch} must be at least 1")
        traits = traits_of(network)
        if traits.in_channels not in (GRAY, COLOR):
            raise UserError(
                f"the network takes {traits.in_channels} channels; only gray (1) and RGB (3) can be restored"
            )
        self.network = network.to(device).eval().requires_grad_(False)
        self.scale = traits.scale
        self.in_channels = traits.in_channels
        self.device = device
        self._autocast = autocast_dtype(amp, device)
        self._tile, self._overlap, self._ensemble, self._batch = tile, overlap, ensemble, batch
        self._compiled = compile
        self._forward: Callable[[torch.Tensor], torch.Tensor] = self.network
        if compile:  # in place; MambaIR's networks compile one block for all, which takes seconds, not minutes
            self.network.compile()
            self._forward = GraphedForward(self.network, most_pixels=None, asked_for=True)
        elif device.type == "cuda":
            self._forward = GraphedForward(self.network)
        self._plan = TilePlan(self._run_plainly, network, device)

    def restore(self, image: Any) -> Any:
        """Restore an image, an array of images or a list of images.

        Takes, and returns in the same type, layout, depth and device, with the sides multiplied by s:

        - NumPy: (H, W), (H, W, C) or (N, H, W, C), RGB order; uint8, uint16, or floats in [0, 1];
        - PIL: modes 1, L, LA, P, RGB, RGBA, I;16 (1 returns L, P returns RGB or RGBA); the EXIF orientation is
          applied, the ICC profile kept;
        - torch: (C, H, W) or (B, C, H, W); uint8, or floats in [0, 1]; results carry no gradients;
        - a list or tuple of these, which may differ in size and kind: returns a list in the same order.

        C is 1 (gray), 2 (gray + alpha), 3 (RGB) or 4 (RGB + alpha). Alpha is restored on its own, as a gray image. A
        gray image goes through a colour network as three equal channels, whose mean is returned; a colour
        image goes through a gray network channel by channel. H and W may be any number >= 1. Results are clipped
        to [0, 1] and, for integers, rounded to nearest.

        Raises UserError for what cannot be restored, and when memory does not suffice.
        """
        if isinstance(image, (list, tuple)):
            return self._restore_list(image)
        unpacked = unpack_image(image)
        return unpacked.pack(self._restore_planes(self._brought_near(unpacked.planes)))

    def _restore_list(self, images: Sequence[Any]) -> list[Any]:
        results: list[Any] = []
        for group in group_by_size([unpack_image(image) for image in images], self._batch):
            restored = self._restore_planes(self._brought_near(joined([unpacked.planes for unpacked in group])))
            parts = restored.split([len(unpacked.planes) for unpacked in group])
            results.extend(unpacked.pack(part) for unpacked, part in zip(group, parts, strict=True))
        return results

    def _brought_near(self, planes: torch.Tensor) -> torch.Tensor:
        """On the network's device, where what is around the network is quicker; large images stay where they are."""
        is_small = planes.numel() * self.scale**2 <= NEAR_VALUES
        return planes.to(self.device) if is_small else planes

    def _restore_planes(self, planes: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) with C from 1 to 4 -> (B, C, s*H, s*W) clipped to [0, 1]."""
        if planes.shape[1] in (GRAY, COLOR):
            return self._restore_colors(planes)
        colors, alpha = planes[:, :-1], planes[:, -1:]
        return torch.cat([self._restore_colors(bled(colors, alpha)), self._restore_alpha(alpha)], dim=1)

    def _restore_alpha(self, alpha: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) -> (B, 1, s*H, s*W); a constant alpha (mostly: opaque) stays exactly what it is."""
        if (alpha == alpha[:, :, :1, :1]).all():
            return alpha[:, :, :1, :1].expand(-1, -1, alpha.shape[2] * self.scale, alpha.shape[3] * self.scale)
        return within_neighbours(self._restore_channels(alpha), alpha)

    def _restore_colors(self, planes: torch.Tensor) -> torch.Tensor:
        """Gray or RGB (B, C, H, W) -> (B, C, s*H, s*W); RGB whose channels are equal is treated as the gray it is.

        Masks, all of them black and white, get no stray values.
        """
        restored = self._restore_channels(planes)
        is_gray = (planes == planes[:, :1]).flatten(1).all(dim=1)  # (B,)
        if planes.shape[1] == COLOR and is_gray.any():
            means = restored.mean(dim=1, keepdim=True).expand_as(restored)
            restored = torch.where(is_gray.to(restored.device)[:, None, None, None], means, restored)
        is_mask = is_gray & ((planes == 0) | (planes == 1)).flatten(1).all(dim=1)
        if is_mask.any():
            clean = within_neighbours(restored, planes)
            restored = torch.where(is_mask.to(restored.device)[:, None, None, None], clean, restored)
        return restored

    def _restore_channels(self, planes: torch.Tensor) -> torch.Tensor:
        """Gray or RGB (B, C, H, W) through a network of either kind -> (B, C, s*H, s*W) clipped to [0, 1]."""
        batch, channels = planes.shape[:2]
        if channels < self.in_channels:
            restored = self._restore_batch(planes.expand(-1, self.in_channels, -1, -1)).mean(dim=1, keepdim=True)
        elif channels > self.in_channels:
            restored = self._restore_batch(planes.flatten(0, 1)[:, None])  # (B*C, 1, s*H, s*W)
            restored = restored.reshape(batch, channels, *restored.shape[2:])
        else:
            restored = self._restore_batch(planes)
        if not restored.isfinite().all():
            raise UserError("the network's result holds NaN or infinite values")
        return restored.clamp(0, 1)

    def _restore_batch(self, lq: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, in_channels, s*H, s*W), at most `batch` images at a time."""
        parts = [self._restore_ensemble(part) for part in lq.split(self._batch)]
        return joined(parts)

    def _restore_ensemble(self, lq: torch.Tensor) -> torch.Tensor:
        return self_ensemble(self._restore_tiles, lq) if self._ensemble else self._restore_tiles(lq)

    def _restore_tiles(self, lq: torch.Tensor) -> torch.Tensor:
        if self._tile == "auto":
            return self._restore_auto(lq)
        try:
            return restore_tiled(self._run, lq, self.scale, self._tile, self._overlap, self._batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            how = "whole" if self._tile is None else f"with tile {self._tile}"
            raise UserError(
                f"not enough memory for {lq.shape[3]}x{lq.shape[2]} pixels {how} on {self.device}; "
                "use tile 'auto' or a smaller number"
            ) from error

    def _restore_auto(self, lq: torch.Tensor) -> torch.Tensor:
        """Whole if it fits, a batch image by image if only one does, else in tiles that are halved until they fit."""
        while True:
            tile = self._plan.choose(lq.shape)
            if tile is not None and len(lq) > 1:
                return torch.cat([self._restore_auto(image) for image in lq.split(1)])
            try:
                return restore_tiled(self._run, lq, self.scale, tile, self._overlap)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler: the exception no longer holds on to the tensors of the failed attempt.
            if tile is not None and tile <= MIN_TILE:
                raise UserError(f"not enough memory on {self.device} even for tiles of {MIN_TILE} pixels")
            self._plan.shrink(lq.shape, tile)

    def _run(self, lq: torch.Tensor) -> torch.Tensor:
        """The network on its device, in its precision; float32 results."""
        if not self._compiled:
            return self._call(self._forward, lq)
        try:
            return self._call(self._forward, lq)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UserError(f"torch.compile failed ({str(error).splitlines()[0]}); run without it") from error

    @paused()  # `GraphedForward` has the graphs
    @torch.inference_mode()
    def _call(self, forward: Callable[[torch.Tensor], torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        lq = lq.to(self.device)
        with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
            restored = forward(lq).float()
        if self._autocast == torch.float16 and not restored.isfinite().all():
            logger.warning("fp16 does not suffice for this image or tile; it is computed again in fp32")
            restored = self.network(lq).float()
        return restored

    def _run_plainly(self, lq: torch.Tensor) -> torch.Tensor:
        """The same without compiled code and graphs, for images that measure memory: theirs would take seconds to make.

        From the second size on, torch.compile makes code for any size: photos would get no code of their own.
        """
        if not self._compiled:
            return self._call(self.network, lq)
        with torch.compiler.set_stance("force_eager"):
            return self._call(self.network, lq)


def check_tile(tile: Tile, overlap: int | None) -> None:
    """Raise UserError for a tile setting that `Restorer` does not know."""
    if isinstance(tile, int) and not isinstance(tile, bool) and tile >= 1:
        if overlap is not None and not 0 <= overlap < tile:
            raise UserError(f"overlap: {overlap} must be from 0 to below the tile size {tile}")
    elif tile not in ("auto", "published", None):
        raise UserError(f"tile: '{tile}' must be auto, published, None or a number of pixels >= 1")


def find_device(name: str) -> torch.device:
    """The device called `name`: auto (CUDA if there is one, else the CPU), cpu, cuda, cuda:1, mps.

    Raises UserError for a name that PyTorch does not know and for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device: '{name}' is not one of auto, cpu, cuda, cuda:N, mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: '{name}' was asked for, but PyTorch finds no CUDA GPU; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: '{name}' does not exist; there are {torch.cuda.device_count()} CUDA GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device: 'mps' was asked for, but is not available here; use cpu or auto")
    return device


def open_network(path: Path, device: str, amp: str) -> tuple[nn.Module, torch.device]:
    """The network in a file, and where PyTorch is to hand it images; ONNX Runtime runs one in an .onnx file.

    Raises UserError for a file of another kind, a device that is not there, and a precision that the file cannot have.
    """
    if path.suffix.lower() != ONNX_EXTENSION:
        return load_network(path), find_device(device)
    if amp not in ("none", "auto"):
        raise UserError(f"{path}: has the precision that it was exported in; leave --amp {amp} out, or export --fp16")
    network = OnnxNetwork(path, device)
    logger.info("ONNX Runtime runs %s with %s", path, network.provider)
    return network, torch.device("cpu")


def load_model(
    weights: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    amp: str = "none",
    compile: bool = False,
    tile: Tile = "auto",
    overlap: int | None = None,
    ensemble: bool = False,
    batch: int = 1,
    task: str | None = None,
    noise: int | None = None,
) -> Restorer:
    """Load trained weights as a model that restores images: `load_model("x.pth").restore(image)`.

    Architecture, scale and all hyperparameters are read off the weights.

    Args:
        weights: a .pth or .safetensors file; an .onnx file that `mambair export` wrote, which ONNX Runtime runs;
            `hf://owner/repo/file` on the Hugging Face Hub, which may end in `@revision` and `#sha256=...`;
            the name of a published file that `mambair weights get` has fetched; None for weights that are on this
            computer: those that come with the package, or were fetched before.
        device: auto, cpu, cuda, cuda:N or mps; for an .onnx file auto, or what this ONNX Runtime has: cpu, cuda,
            cuda:N, directml, coreml.
        amp, compile, tile, overlap, ensemble, batch: see `Restorer`.
        task, noise: x2, x3, x4, denoise, jpeg, photo, photo_x4, or sr for any that enlarges (`mambair.weights.tasks`),
            and the noise level (sigma) or JPEG quality of denoise and jpeg: which of these weights, if `weights` is
            None; otherwise checked as far as the file tells.

    Raises:
        UserError: no such file, a file of another kind, a device that is not there.
    """
    for warning in load_installed_plugins():
        logger.warning(warning)
    path = find_weights(weights, task=task, noise=noise)
    network, device = open_network(path, str(device), amp)
    scale = traits_of(network).scale
    check_purpose(path, scale, task, noise)
    logger.info("weights: %s (%s, x%d)", path, type(network).__name__, scale)
    return Restorer(
        network,
        device=device,
        amp=amp,
        tile=tile,
        overlap=overlap,
        ensemble=ensemble,
        batch=batch,
        compile=compile,
    )
