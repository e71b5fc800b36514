"""Videos are restored frame by frame, with their times and their sound."""

from pathlib import Path

import numpy as np
import pytest

from mambair.commands.restore.command import main
from mambair.commands.restore.video import restore_video
from mambair.errors import UserError

av = pytest.importorskip("av", reason="the extra [video] is not installed")

FRAMES, RATE = 5, 10


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Five 32x24 frames at 10 per second, each a different grey, with half a second of sound."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as writer:
        video = writer.add_stream("libx264", rate=RATE, options={"crf": "0"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        sound = writer.add_stream("aac", rate=8000, layout="mono")
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 40 * index, np.uint8), format="rgb24")
            writer.mux(video.encode(frame))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        writer.mux(sound.encode(samples))
        writer.mux(sound.encode(None))
        writer.mux(video.encode(None))
    return path


def frames_of(path: Path) -> tuple[list[np.ndarray], list[float], int]:
    """(frames, their times in seconds, packets of sound)."""
    with av.open(str(path)) as reader:
        sound = sum(packet.dts is not None for packet in reader.demux(audio=0)) if reader.streams.audio else 0
    with av.open(str(path)) as reader:
        decoded = list(reader.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in decoded], [frame.time for frame in decoded], sound


def enlarge(images: list[np.ndarray]) -> list[np.ndarray]:
    return [image.repeat(2, axis=0).repeat(2, axis=1) for image in images]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frames_times_and_sound_survive(clip: Path, tmp_path: Path, suffix: str) -> None:
    target, reports = tmp_path / f"out{suffix}", []
    assert restore_video(clip, target, enlarge, 2, lambda done, total: reports.append((done, total))) == FRAMES
    frames, times, sound = frames_of(target)
    _, wanted_times, wanted_sound = frames_of(clip)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * FRAMES
    for index, frame in enumerate(frames):
        assert abs(frame.mean() - 40 * index) < 3
    np.testing.assert_allclose(times, wanted_times, atol=2e-3)
    assert sound == wanted_sound > 0
    assert reports == [(2, FRAMES), (4, FRAMES), (5, FRAMES)]


def test_odd_sides_are_kept(clip: Path, tmp_path: Path) -> None:
    restore_video(clip, tmp_path / "odd.mp4", lambda images: [image[:23, :31] for image in images], 1, lambda *_: None)
    assert frames_of(tmp_path / "odd.mp4")[0][0].shape == (23, 31, 3)


def test_the_command_takes_videos_among_photos(clip: Path, tmp_path: Path, x2_weights: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:200])
    out = tmp_path / "out"
    arguments = [str(clip), str(tmp_path / "broken.mp4"), "-o", str(out), "--weights", str(x2_weights), "--batch", "3"]
    assert main(arguments) == 1
    assert frames_of(out / "clip.mp4")[0][4].shape == (48, 64, 3)
    assert [path.name for path in out.iterdir()] == ["clip.mp4"]


def test_sound_that_the_container_cannot_hold_is_a_message(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.mp4: its sound \(aac\) .* write \.mkv"):
        restore_video(clip, tmp_path / "out.webm", enlarge, 1, lambda *_: None)
    assert not (tmp_path / "out.webm").exists()


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4"):
        restore_video(tmp_path / "text.mp4", tmp_path / "out.mp4", enlarge, 1, lambda *_: None)
    assert not (tmp_path / "out.mp4").exists()
