"""Restored videos are shown in the colours, depth and shape of their sources."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mambair.commands.restore.video import encoders
from mambair.errors import UserError
from tests.commands.restore.videos import (
    X265_QUIET,
    Made,
    av,
    colours,
    enlarge,
    first_frame,
    grays,
    restored,
    shown,
    tags_of,
)

VIDEO_RANGE, FULL_RANGE = 1, 2
BT709, BT601, BT2020 = (1, VIDEO_RANGE, 1, 1), (6, VIDEO_RANGE, 6, 6), (9, VIDEO_RANGE, 9, 14)
PQ, HLG = (9, VIDEO_RANGE, 9, 16), (9, VIDEO_RANGE, 9, 18)
MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"


def difference(source: Path, target: Path) -> float:
    """Largest difference of what is shown, in levels of 255, apart from the outermost pixels."""
    wanted = enlarge([shown(source).astype(int)])[0]
    return np.abs(wanted - shown(target))[4:-4, 4:-4].max()


@pytest.mark.parametrize("tags", [BT709, BT601, BT2020, (5, VIDEO_RANGE, 5, 6), (7, VIDEO_RANGE, 7, 7)])
def test_tagged_colours_are_kept(tags: tuple[int, ...], tmp_path: Path) -> None:
    source = Made(tags=tags).write(tmp_path / "in.mp4", [colours()] * 2)
    assert restored(source, tmp_path / "out.mp4") == []
    assert tags_of(tmp_path / "out.mp4") == tags_of(source) == tags
    assert difference(source, tmp_path / "out.mp4") <= 8


def test_full_range_is_kept(tmp_path: Path) -> None:
    source = Made(pix_fmt="yuvj420p", tags=(1, FULL_RANGE, 1, 1)).write(tmp_path / "in.mp4", [colours()])
    restored(source, tmp_path / "out.mp4")
    assert tags_of(tmp_path / "out.mp4") == tags_of(source) == (1, FULL_RANGE, 1, 1)
    assert difference(source, tmp_path / "out.mp4") <= 8


@pytest.mark.parametrize(("size", "matrix"), [((64, 400), 6), ((48, 576), 5), ((64, 580), 1), ((1280, 32), 1)], ids=str)
def test_untagged_video_is_shown_alike_when_it_grows(size: tuple[int, int], matrix: int, tmp_path: Path) -> None:
    """Players guess by size: what was SD and untagged must not be taken for HD now."""
    rows = np.indices((size[1], size[0])).sum(axis=0) / sum(size)
    image = np.stack([220 - 100 * rows, 40 + 60 * rows, 60 + 120 * rows], axis=2).astype(np.uint8)
    source = Made(size=size).write(tmp_path / "in.mkv", [image])
    assert tags_of(source)[0] == 2
    restored(source, tmp_path / "out.mkv")
    assert tags_of(tmp_path / "out.mkv")[0] == matrix
    assert difference(source, tmp_path / "out.mkv") <= 4


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("ffv1", "bgr0"), ("libx264rgb", "rgb24"), ("libx264", "yuv444p"), ("ffv1", "gray")]
)
def test_frames_of_other_kinds_are_shown_alike(codec: str, pix_fmt: str, tmp_path: Path) -> None:
    source = Made(codec=codec, pix_fmt=pix_fmt, options={}).write(tmp_path / "in.mkv", [colours()])
    assert restored(source, tmp_path / "out.mkv") == []
    assert difference(source, tmp_path / "out.mkv") <= 8
    assert tags_of(tmp_path / "out.mkv")[:2] == (6 if pix_fmt == "gray" else tags_of(tmp_path / "out.mkv")[0], 1)


def test_a_matrix_that_cannot_be_converted_is_a_message(tmp_path: Path) -> None:
    def ycgco(stream) -> None:
        stream.codec_context.colorspace = 8

    source = Made(prepare=ycgco).write(tmp_path / "in.mkv", [colours()])
    with pytest.raises(UserError, match=r"in\.mkv: its colours are coded as YCgCo, .* convert it to BT\.709 first"):
        restored(source, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "tags"),
    [
        ("libx264", "yuv420p10le", BT709),
        ("libx265", "yuv420p10le", PQ),
        ("libx265", "yuv422p10le", HLG),
        ("libx265", "yuv444p10le", BT2020),
        ("ffv1", "yuv420p16le", BT709),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_deep_frames_go_through_in_16_bits_and_come_out_in_10(
    codec: str, pix_fmt: str, tags: tuple[int, ...], suffix: str, tmp_path: Path
) -> None:
    image, seen = colours(dtype=np.uint16), []

    def restore(images: list[np.ndarray]) -> list[np.ndarray]:
        seen.extend(images)
        return enlarge(images)

    made = Made(codec=codec, pix_fmt=pix_fmt, tags=tags, options=X265_QUIET if codec == "libx265" else {})
    source = made.write(tmp_path / "in.mkv", [image] * 2)
    lines = restored(source, tmp_path / f"out{suffix}", restore)
    assert lines == (["its 16 bits per channel become 10"] if codec == "ffv1" else [])
    # Halved chroma and the encoder: up to 3 % of the range, and far fewer steps than 8 bits could have.
    assert {frame.dtype for frame in seen} == {np.dtype(np.uint16)}
    assert np.abs(seen[0].astype(int) - image)[2:-2, 2:-2].max() < 1700
    frame = first_frame(tmp_path / f"out{suffix}")
    assert frame.format.name == "yuv420p10le"
    assert tags_of(tmp_path / f"out{suffix}") == tags
    result = frame.to_ndarray(format="rgb48le", interpolation=0x40004).astype(int)
    assert np.abs(result - enlarge([image.astype(int)])[0])[4:-4, 4:-4].max() < 2200
    with av.open(str(tmp_path / f"out{suffix}")) as reader:
        assert reader.streams.video[0].codec_context.name == "hevc"


def test_ten_bits_are_ten_and_not_eight(tmp_path: Path) -> None:
    """A slow ramp keeps steps that 8 bits cannot tell apart."""
    ramp = np.repeat(np.linspace(20000, 24000, 128)[None, :, None], 3, axis=2).repeat(32, axis=0).astype(np.uint16)
    made = Made(size=(128, 32), pix_fmt="yuv420p10le", tags=BT709, options={"crf": "0"})
    source = made.write(tmp_path / "in.mkv", [ramp])
    levels = {}
    for bits in ("same", "8"):
        restored(source, tmp_path / f"{bits}.mkv", bits=bits)
        frame = first_frame(tmp_path / f"{bits}.mkv")
        levels[bits] = len(np.unique(frame.reformat(format="gray16le").to_ndarray()[16:-16]))
    assert levels["same"] > 2 * levels["8"]


def test_hdr_says_what_it_was_mastered_on(tmp_path: Path) -> None:
    options = X265_QUIET | {"x265-params": f"log-level=none:master-display={MASTERING}:max-cll=1000,400"}
    source = Made(codec="libx265", pix_fmt="yuv420p10le", tags=PQ, options=options).write(
        tmp_path / "in.mp4", [colours(dtype=np.uint16)]
    )
    kinds = {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"}

    def said(path: Path) -> dict[str, bytes]:
        return {data.type.name: bytes(data) for data in first_frame(path).side_data if data.type.name in kinds}

    restored(source, tmp_path / "out.mp4")
    assert said(tmp_path / "out.mp4") == said(source)
    assert set(said(source)) == kinds


def test_the_loss_of_bits_can_be_accepted(tmp_path: Path) -> None:
    made = Made(codec="libx265", pix_fmt="yuv420p10le", tags=PQ, options=X265_QUIET)
    source = made.write(tmp_path / "in.mp4", [colours(dtype=np.uint16)])
    restored(source, tmp_path / "out.mp4", bits="8")
    assert first_frame(tmp_path / "out.mp4").format.name == "yuv420p"
    assert tags_of(tmp_path / "out.mp4") == PQ  # still coded so: without the tags it would be shown gray


def test_16_bits_asked_for_are_10_of_8(tmp_path: Path) -> None:
    source = Made(tags=BT709).write(tmp_path / "in.mp4", [colours()])
    restored(source, tmp_path / "out.mp4", bits="16")
    assert first_frame(tmp_path / "out.mp4").format.name == "yuv420p10le"
    assert difference(source, tmp_path / "out.mp4") <= 8


@pytest.mark.parametrize(("available", "codec"), [(("libsvtav1",), "av1"), (("absent", "libx264"), "h264")])
def test_other_encoders_stand_in(
    available: tuple[str, ...], codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "DEEP_ENCODERS", available)
    source = Made(pix_fmt="yuv420p10le", tags=PQ).write(tmp_path / "in.mp4", [colours(dtype=np.uint16)] * 3)
    restored(source, tmp_path / "out.mp4")
    frame = first_frame(tmp_path / "out.mp4")
    assert (frame.format.name, tags_of(tmp_path / "out.mp4")) == ("yuv420p10le", PQ)
    with av.open(str(tmp_path / "out.mp4")) as reader:
        assert codec in reader.streams.video[0].codec_context.codec.canonical_name


def test_av1_does_not_cost_the_shape_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(stream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)

    monkeypatch.setattr(encoders, "DEEP_ENCODERS", ("libsvtav1", "libx264"))
    source = Made(pix_fmt="yuv420p10le", tags=PQ, prepare=wide).write(tmp_path / "in.mkv", [colours()] * 3)
    for suffix, codec in ((".mkv", "h264"), (".mp4", "av1")):
        restored(source, tmp_path / f"out{suffix}")
        with av.open(str(tmp_path / f"out{suffix}")) as reader:
            assert reader.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
            assert codec in reader.streams.video[0].codec_context.codec.canonical_name


def test_without_an_encoder_deep_video_is_refused_before_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "DEEP_ENCODERS", ("absent",))
    source = Made(pix_fmt="yuv420p10le", tags=PQ).write(tmp_path / "in.mp4", [colours(dtype=np.uint16)])
    with pytest.raises(UserError, match=r"in\.mp4: has more than 8 bits .* --bits 8 accepts the loss"):
        restored(source, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
    restored(source, tmp_path / "out.mp4", bits="8")


def test_transparency_is_said_to_be_left_out(tmp_path: Path) -> None:
    source = Made(codec="ffv1", pix_fmt="yuva420p", options={}).write(tmp_path / "in.mkv", [colours()])
    assert [line for line in restored(source, tmp_path / "out.mkv") if "transparency" in line]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_pixels_that_are_not_square_stay_so(suffix: str, tmp_path: Path) -> None:
    def wide(stream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)

    source = Made(prepare=wide).write(tmp_path / f"in{suffix}", grays(3))
    restored(source, tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as reader:
        assert reader.streams.video[0].sample_aspect_ratio == Fraction(16, 11)


CORNERS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "white": (220, 220, 220)}


@pytest.mark.parametrize(
    ("degrees", "mirrored", "wanted"),
    [
        (0, False, ["red", "green", "blue", "white"]),
        (90, False, ["green", "white", "red", "blue"]),
        (180, False, ["white", "blue", "green", "red"]),
        (-90, False, ["blue", "red", "white", "green"]),
        (0, True, ["green", "red", "white", "blue"]),
        (90, True, ["white", "green", "blue", "red"]),
    ],
)
def test_turned_and_mirrored_videos_come_out_upright(
    degrees: int, mirrored: bool, wanted: list[str], tmp_path: Path
) -> None:
    """The aspect of pixels turns, too."""

    def turn(stream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot make such a file")
        stream.set_display_rotation(degrees, hflip=mirrored)

    tiles = np.array([[CORNERS["red"], CORNERS["green"]], [CORNERS["blue"], CORNERS["white"]]], np.uint8)
    source = Made(prepare=turn).write(tmp_path / "in.mp4", [tiles.repeat(24, axis=0).repeat(32, axis=1)])
    restored(source, tmp_path / "out.mp4")
    image = shown(tmp_path / "out.mp4").astype(int)
    quarter = image.shape[0] // 4, image.shape[1] // 4
    found = [image[y * quarter[0], x * quarter[1]] for y in (1, 3) for x in (1, 3)]
    assert [min(CORNERS, key=lambda name: np.abs(pixel - CORNERS[name]).sum()) for pixel in found] == wanted
    with av.open(str(tmp_path / "out.mp4")) as reader:
        sideways = degrees % 180 != 0
        assert reader.streams.video[0].sample_aspect_ratio == (Fraction(3, 4) if sideways else Fraction(4, 3))
