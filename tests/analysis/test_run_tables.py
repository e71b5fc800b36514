"""Tables and the figure of training runs, from made log lines whose figures are known."""

from pathlib import Path

import pytest

from mambair.analysis.figures import save_training_figure, shown_range
from mambair.analysis.log_lines import read_pieces
from mambair.analysis.run_tables import comparison, hours
from mambair.analysis.training_logs import LoggedRun, join_pieces
from tests.analysis.test_training_logs import BEGINNING, NETWORK, going_on, line, shared_out, validation


def mixed_runs() -> list[LoggedRun]:
    """One run on two GPUs and then on one, 1 s and 1.5 s an iteration; the other one on one GPU, 2 s."""
    first = [shared_out(2, 16, 1), BEGINNING, NETWORK]
    first += [line(1800, 1.0, memory=3.1, batch=32), validation(1800, 33.0)]
    first += [shared_out(1, 16, 2), BEGINNING, NETWORK, going_on(1800), line(2000, 8.0, memory=3.0, batch=32)]
    first += [line(3600, 1.5, memory=3.1, batch=32), validation(3600, 34.0)]
    second = [shared_out(1, 32, 1), BEGINNING, NETWORK, line(1800, 2.0, memory=5.25, batch=32), validation(1800, 32.0)]
    second += [line(3600, 2.0, memory=5.25, batch=32), validation(3600, 33.5), line(5400, 2.0), validation(5400, 34.5)]
    return [join_pieces(name, read_pieces(lines)) for name, lines in (("mixed", first), ("alone", second))]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in it, without the rulers."""
    lines = [row for row in text.splitlines() if row.startswith("|") and "---" not in row]
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in lines]


def test_short_times_keep_their_digits() -> None:
    assert [hours(seconds) for seconds in (0, 4.32, 324, 360, 3600)] == ["0", "0.0012", "0.09", "0.10", "1.00"]


def test_tables_count_the_time_of_all_devices() -> None:
    pace_head, mixed, alone, head, *scores = rows(comparison(mixed_runs(), ["Set5"]))
    assert pace_head[3:] == ["on", "starts", "GPU s/iteration", "waiting for data", "images/GPU s", "memory"]
    on = "2 x NVIDIA H100; 1 x NVIDIA H100"
    assert mixed == ["mixed", "MambaIR", "905,016", on, "2", "1.500", "0.000", "21.3", "3.1 GiB (16 images per GPU)"]
    assert alone[3:6] == ["1 x NVIDIA H100", "1", "2.000"] and alone[-1] == "5.2 GiB (32 images per GPU)"
    assert head == ["", "iterations", "GPU hours", "Set5 PSNR", "Set5 SSIM"]
    # 1800 iterations of 1 s on two GPUs are one GPU hour, 1800 of 1.5 s on one are 0.75.
    assert scores[0][:4] == ["mixed", "3,600", "1.75", "34.00"] and scores[1][:4] == ["alone", "3,600", "2.00", "33.50"]
    # Within 1.75 GPU hours the other one was validated at 1,800 only.
    assert scores[3][:4] == ["mixed", "3,600", "1.75", "34.00"] and scores[4][:4] == ["alone", "1,800", "1.00", "32.00"]


def test_runs_without_anything_in_common_are_compared_by_what_each_has() -> None:
    _, alone = mixed_runs()
    early = join_pieces("early", read_pieces([BEGINNING, line(100, 1.0), validation(100, 30.0)]))
    text = comparison([alone, early], ["Set5"])
    assert "At their last validations" in text and "At equal iterations" not in text
    last = rows(text)[4:6]
    assert [[*row[:2], row[3]] for row in last] == [["alone", "5,400", "34.50"], ["early", "100", "30.00"]]
    other = join_pieces("other", read_pieces([BEGINNING, line(1800, 1.0), validation(1800, 31.0, "Set14")]))
    text = comparison([alone, other], ["Set5", "Set14"])
    head, first, second = rows(text)[3:6]
    assert head[3:] == ["Set5 PSNR", "Set5 SSIM", "Set14 PSNR", "Set14 SSIM"]
    assert first[3] == "32.00" and first[5:] == ["-", "-"] and second[3:6] == ["-", "-", "31.00"]


def test_the_figure_shows_the_last_decibels_and_all_references() -> None:
    curves = [[20.0, 33.0, 36.0, 37.0], [24.0, 34.0, 36.0]]
    bottom, top = shown_range(curves)
    assert 32.5 < bottom < 33.0 and 37.0 < top < 37.5
    bottom, top = shown_range(curves, [31.0, 38.0])
    assert 30.5 < bottom < 31.0 and 38.0 < top < 38.5
    # Little to see, or one point alone, is shown as it is.
    assert shown_range([[30.0, 30.5]])[0] == pytest.approx(29.95) and shown_range([[30.0]]) == (29.95, 30.05)


def test_runs_of_other_points_and_metrics_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _, alone = mixed_runs()
    early = join_pieces("early", read_pieces([BEGINNING, line(100, 1.0), validation(100, 30.0)]))
    for metric, label in (("psnr", "PSNR on Set5 (dB)"), ("ssim", "SSIM on Set5")):
        path = tmp_path / f"{metric}.svg"
        save_training_figure(path, [alone, early], "Set5", metric=metric)
        assert label in path.read_text() and "early" in path.read_text()


def test_references_change_the_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plain, referred = tmp_path / "plain.svg", tmp_path / "referred.svg"
    save_training_figure(plain, mixed_runs(), "Set5")
    save_training_figure(referred, mixed_runs(), "Set5", {"bicubic": 33.67})
    assert "bicubic (33.67 dB)" in referred.read_text() and "bicubic" not in plain.read_text()
    assert "GPU hours of computing" in plain.read_text() and "alone (905,016 parameters)" in plain.read_text()


def test_runs_that_shared_a_gpu_are_drawn_against_iterations_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for way, label, other in (("iterations", ">iterations", "GPU hours"), ("hours", "GPU hours", ">iterations")):
        path = tmp_path / f"{way}.svg"
        save_training_figure(path, mixed_runs(), "Set5", against=(way,))
        text = path.read_text().replace("<!-- ", ">")
        assert label in text and other not in text and "PSNR on Set5 (dB)" in text
