"""What a decoded image file is: pixels, what the file says besides, and all its frames or pages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mambair.imaging.metadata import EMPTY, Metadata

DEEP_FACTOR = 257
"""255 * 257 = 65535: between the same grey in 8 and in 16 bits."""


@dataclass(frozen=True)
class Animation:
    """How the frames of a photo are shown one after the other."""

    milliseconds: tuple[float, ...]
    """How long each frame is shown, the first one included."""
    loops: int = 0
    """How often; 0 for ever."""


@dataclass(frozen=True)
class Photo:
    """A decoded image file."""

    pixels: np.ndarray
    """(H, W, C) uint8 or uint16, upright; C is 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha."""
    metadata: Metadata = EMPTY
    further: tuple["Photo", ...] = ()
    """The pages of a TIFF file, or the frames of an animation, beyond the first."""
    animation: Animation | None = None
    """None for pages."""
    dropped: tuple[str, ...] = ()
    """What of the file could not be taken, in words."""

    @property
    def images(self) -> tuple[np.ndarray, ...]:
        """The pixels of all frames or pages."""
        return self.pixels, *(other.pixels for other in self.further)

    def with_images(self, images: Sequence[np.ndarray]) -> "Photo":
        """The same photo with other pixels, as many as it has frames or pages."""
        pixels, *others = images
        further = tuple(replace(page, pixels=each) for page, each in zip(self.further, others, strict=True))
        return replace(self, pixels=pixels, further=further)

    def deepened(self) -> "Photo":
        """The same photo with 16 bits per channel."""
        if self.animation is not None:
            return self  # no file type holds animations of more
        as_deep = (each if each.dtype == np.uint16 else each.astype(np.uint16) * DEEP_FACTOR for each in self.images)
        return self.with_images(list(as_deep))
