"""Every frame of a restored video is shown when its source's was, whatever the rate."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mambair.commands.restore.video.times import Clock
from tests.commands.restore.videos import Made, av, grays, restored, times_of

STEADY = [round(index * 1000 / 30) for index in range(40)]
JITTER = np.random.default_rng(0).integers(-540, 540, 40)
TIMES = {
    "one frame dropped": (STEADY[:20] + STEADY[21:], 1000),
    "a pause": (STEADY[:30] + [time + 1000 for time in STEADY[30:]], 1000),
    "30, then 60 a second": (STEADY[:20] + [STEADY[20] + round(index * 1000 / 60) for index in range(20)], 1000),
    "a phone's jitter": ([index * 3000 + 600 + int(jitter) for index, jitter in enumerate(JITTER)], 90000),
    "a late start": ([700 + time for time in STEADY], 1000),
    "NTSC": ([index * 1001 for index in range(40)], 30000),
    "one frame": ([0], 1000),
    "a long rest": ([0, 40_000], 1000),
}


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("name", TIMES)
def test_frames_keep_their_times(name: str, suffix: str, tmp_path: Path) -> None:
    times, unit = TIMES[name]
    source = Made().write(tmp_path / f"in{suffix}", grays(len(times)), times, unit)
    assert restored(source, tmp_path / f"out{suffix}") == []
    np.testing.assert_allclose(times_of(tmp_path / f"out{suffix}"), times_of(source), rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        times_of(source), np.divide(times, unit), rtol=0, atol=1e-3
    )  # Matroska counts milliseconds


@pytest.mark.parametrize(("made", "written"), [(".mp4", ".mkv"), (".mkv", ".mp4"), (".mov", ".mkv")])
def test_times_pass_from_one_container_to_another(made: str, written: str, tmp_path: Path) -> None:
    times, unit = TIMES["one frame dropped"]
    source = Made().write(tmp_path / f"in{made}", grays(len(times)), times, unit)
    restored(source, tmp_path / f"out{written}")
    np.testing.assert_allclose(times_of(tmp_path / f"out{written}"), times_of(source), rtol=0, atol=6e-4)


def test_a_constant_rate_stays_one(tmp_path: Path) -> None:
    source = Made().write(tmp_path / "in.mp4", grays(30), range(0, 30000, 1000), 25000)
    restored(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as reader:
        assert reader.streams.video[0].guessed_rate == 25
        assert reader.streams.video[0].frames == 30


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_ticks_finer_than_any_eye_do_not_overflow(suffix: str, tmp_path: Path) -> None:
    """Ten million a second, as Windows counts, and five minutes between two frames."""
    times = [0, 333667, 667334, 3_000_000_000, 3_000_333_667]
    source = Made(options={"bf": "0"}).write(tmp_path / "in.mov", grays(5), [time // 5 for time in times], 2_000_000)
    restored(source, tmp_path / f"out{suffix}")
    atol = 1e-6 if suffix == ".mp4" else 6e-4
    np.testing.assert_allclose(times_of(tmp_path / f"out{suffix}"), times_of(source), rtol=0, atol=atol)
    np.testing.assert_allclose(times_of(source), np.array(times) / 1e7, rtol=0, atol=1e-6)


def test_avi_whose_times_are_those_of_decoding_plays_evenly(tmp_path: Path) -> None:
    source = Made(options={"bf": "3"}).write(tmp_path / "in.avi", grays(40), range(40), 25)
    assert np.diff(times_of(source)).min() < 0  # as PyAV reads them
    assert restored(source, tmp_path / "out.mkv") == []
    np.testing.assert_allclose(np.diff(times_of(tmp_path / "out.mkv")), 0.04, rtol=0, atol=1e-6)


def test_frames_without_a_time_of_their_own_follow_each_other(tmp_path: Path) -> None:
    source = Made().write(tmp_path / "in.mp4", grays(1), [0], 25)
    stamped = []
    with av.open(str(source)) as reader:
        clock = Clock(reader.streams.video[0])
        for time in [None, 1, 1, 1, 2, None]:
            original, frame = av.VideoFrame(16, 16, "gray"), av.VideoFrame(16, 16, "gray")
            original.pts, original.time_base = time, Fraction(1, 25)
            clock.stamp(frame, original)
            stamped.append(float(frame.pts * frame.time_base))
    assert all(earlier < later for earlier, later in itertools.pairwise(stamped))
    np.testing.assert_allclose(stamped, [0, 0.04, 0.04, 0.04, 0.08, 0.18], rtol=0, atol=1e-3)
