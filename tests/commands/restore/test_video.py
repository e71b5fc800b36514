"""Videos are restored frame by frame, with their times and their sound."""

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mambair.commands.restore.command import main
from mambair.commands.restore.video import restore_video
from mambair.commands.restore.video.transcode import OLDEST_PYAV
from mambair.errors import UserError
from tests.commands.restore.videos import Made, av, enlarge, grays, restored, times_of

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


def failing_after(frames: int, error: BaseException) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    """A network that fails once it has seen so many frames."""
    seen = []

    def restore(images: list[np.ndarray]) -> list[np.ndarray]:
        seen.extend(images)
        if len(seen) > frames:
            raise error
        return enlarge(images)

    return restore


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "error", [UserError("no memory, even for tiles"), OSError(28, "No space left on device"), MemoryError()], ids=repr
)
def test_work_that_is_done_outlives_a_failure(clip: Path, tmp_path: Path, suffix: str, error: Exception) -> None:
    kept = tmp_path / f"out.incomplete{suffix}"
    with pytest.raises(UserError, match=rf"clip\.mp4: .*; the first 4 frames are in .*out\.incomplete{suffix}"):
        restore_video(clip, tmp_path / f"out{suffix}", failing_after(4, error), 2, lambda *_: None)
    assert not (tmp_path / f"out{suffix}").exists()
    frames, times, _ = frames_of(kept)
    assert [round(frame.mean() / 40) for frame in frames] == [0, 1, 2, 3]
    np.testing.assert_allclose(times, frames_of(clip)[1][:4], atol=2e-3)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("CUDA error: an illegal memory access")], ids=repr)
def test_work_that_is_done_outlives_an_interruption(clip: Path, tmp_path: Path, error: BaseException) -> None:
    """And is not put in the place of what an earlier one left."""
    for number in ("", "-2"):
        notes: list[str] = []
        with pytest.raises(type(error)):
            restore_video(clip, tmp_path / "out.mp4", failing_after(2, error), 2, lambda *_: None, note=notes.append)
        kept = tmp_path / f"out.incomplete{number}.mp4"
        assert notes == [f"the first 2 frames are in {kept}"]
        assert len(frames_of(kept)[0]) == 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_keeps_what_can_be_played(tmp_path: Path, suffix: str) -> None:
    """MP4's index comes last, and without it there is nothing to play."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs the rights to")
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3)).astype(np.uint8)
    source = Made().write(tmp_path / f"in{suffix}", list(noise))
    try:
        with pytest.raises(UserError, match=rf"in{suffix}: .*No space left on device"):
            restored(source, disk / f"out{suffix}")
        assert [path.name for path in disk.iterdir()] == (["out.incomplete.mkv"] if suffix == ".mkv" else [])
        if suffix == ".mkv":
            assert len(times_of(disk / "out.incomplete.mkv")) > 20
    finally:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)


def test_nothing_is_left_of_what_fails_at_once(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.mp4: no memory$"):
        restore_video(clip, tmp_path / "out.mp4", failing_after(0, UserError("no memory")), 2, lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_damage_costs_only_the_frames_that_it_hit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3)).astype(np.uint8)
    source = Made(options={"g": "5", "bf": "0"}).write(tmp_path / "in.mp4", list(noise))
    with av.open(str(source)) as reader:
        packets = [(packet.pos, packet.size) for packet in reader.demux(video=0) if packet.size]
    data = bytearray(source.read_bytes())
    for position, size in packets[15:20]:
        data[position : position + size] = b"\xff" * size
    source.write_bytes(data)
    lines = restored(source, tmp_path / "out.mp4")
    assert [line for line in lines if line.endswith("damaged packets were left out")]
    assert 30 <= len(times_of(tmp_path / "out.mp4")) < 40
    assert times_of(tmp_path / "out.mp4")[-1] == pytest.approx(3.9)


def test_a_file_that_was_cut_short_is_said_to_be(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3)).astype(np.uint8)
    source = Made().write(tmp_path / "in.mkv", list(noise))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 4])
    (line,) = restored(source, tmp_path / "out.mkv")
    assert line.startswith("its frames end after ")
    assert line.endswith(" s of 4.0 s: it was cut short, or is damaged")


def test_frames_that_change_size_are_brought_to_one(tmp_path: Path) -> None:
    parts = [Made(size=size).write(tmp_path / f"{size[0]}.h264", grays(5, size)) for size in ((64, 48), (32, 32))]
    (tmp_path / "both.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(tmp_path / "both.h264")) as reader, av.open(str(tmp_path / "in.mkv"), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0], opaque=True)
        for number, packet in enumerate(packet for packet in reader.demux() if packet.size):
            packet.pts = packet.dts = number
            packet.time_base, packet.duration, packet.stream = Fraction(1, 10), 1, stream
            writer.mux(packet)
    lines = restored(tmp_path / "in.mkv", tmp_path / "out.mkv")
    assert lines == ["its frames change size; all were brought to 128x96"]
    assert {frame.shape for frame in frames_of(tmp_path / "out.mkv")[0]} == {(96, 128, 3)}


def test_an_old_pyav_is_named(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "__version__", "16.1.0")
    with pytest.raises(UserError, match=r"clip\.mp4: videos need PyAV 17 or later, and 16\.1\.0 is here; install it"):
        restore_video(clip, tmp_path / "out.mp4", enlarge, 1, lambda *_: None)


def test_the_extra_asks_for_the_pyav_that_is_checked() -> None:
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'video = ["av>={OLDEST_PYAV}"]' in project
