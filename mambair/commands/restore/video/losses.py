"""What the frames of a video carry that restored frames do not."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mambair.commands.restore.video.colours import side_data_of

if TYPE_CHECKING:
    import av

_SIDE_DATA = {
    "A53_CC": "its closed captions, which are inside the pictures, are left out",
    "DYNAMIC_HDR_PLUS": "its HDR10+ metadata, which describe the frames as they were, are left out",
    "DOVI_METADATA": "its Dolby Vision metadata, which describe the frames as they were, are left out",
    "SPHERICAL": "its mark of a 360-degree video is left out",
    "STEREO3D": "its mark of a stereoscopic video is left out",
    "ICC_PROFILE": "the ICC profile of its frames is left out",
}
_DEEPEST = 10


def losses_of(frame: "av.VideoFrame", tags: Mapping[str, str], deep: bool) -> Iterator[str]:
    """Lines on what of a frame is not in the result; `tags`: of its stream; `deep`: the result has 10 bits."""
    for kind in side_data_of(frame):
        if kind in _SIDE_DATA:
            yield _SIDE_DATA[kind]
    components = frame.format.components
    if any(component.is_alpha for component in components) or tags.get("alpha_mode") == "1":
        yield "its transparency is left out; export it as PNG files to restore that, too"
    depth = max(component.bits for component in components)
    if deep and depth > _DEEPEST:
        yield f"its {depth} bits per channel become {_DEEPEST}"
    if frame.interlaced_frame:
        yield "its frames are interlaced and were restored as whole pictures; deinterlace it first for a better result"
