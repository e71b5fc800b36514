"""Reading training logs: real ones of tiny runs, and made ones whose figures are known."""

from pathlib import Path

import pytest

from mambair.analysis.training_logs import join_pieces, read_pieces, read_run
from mambair.errors import UserError
from tests.engine.tiny_run import train

BEGINNING = (
    "2026-01-01 00:00:00,000 INFO: a run on BSD in /experiments/a run on NVIDIA H100 "
    "(mambair 1.0, PyTorch 2.11.0+cu128, Python 3.11.2)"
)
NETWORK = "2026-01-01 00:00:00,000 INFO: net_g: MambaIR, 905,016 parameters"


def going_on(iteration: int) -> str:
    return f"2026-01-01 00:00:00,000 INFO: going on after iteration {iteration:,} from x/{iteration}.state"


def line(iteration: int, seconds: float, data: float = 0.0, memory: float = 4.0, batch: int = 8) -> str:
    return (
        f"2026-01-01 00:00:00,000 INFO: iter {iteration:,}/60,000 | l_pix 1.0000e-02 | lr 2.000e-04 | grad 0.5 | "
        f"{seconds:.3f} s/iter (data {data:.3f}) | {batch / seconds:.1f} images/s | eta 1:00:00 | memory {memory} GiB"
    )


def validation(iteration: int, psnr: float, dataset: str = "Set5") -> str:
    return (
        f"2026-01-01 00:00:00,000 INFO: validation at {iteration:,} on {dataset}: "
        f"psnr {psnr} (best 40.00 at 1), ssim 0.9000 (best 0.95 at 1)"
    )


def joined(*starts: list[str]):
    return join_pieces("run", [piece for start in starts for piece in read_pieces([BEGINNING, NETWORK, *start])])


def test_one_start() -> None:
    run = joined([line(1000, 2.0), validation(1000, 30.0), line(2000, 1.5, 0.5, 4.5), validation(2000, 31.5)])
    assert (run.network, run.parameters, run.hardware, run.memory) == ("MambaIR", 905_016, ("NVIDIA H100",), 4.5)
    assert run.validations == {"Set5": {1000: {"psnr": 30, "ssim": 0.9}, 2000: {"psnr": 31.5, "ssim": 0.9}}}
    assert run.seconds_per_iteration == 1.0 and run.waiting_per_iteration == 0.5
    assert run.images_per_second == pytest.approx(8, rel=0.01)
    # The first line holds compiling, once, and waiting for data does not count.
    assert [run.computing_seconds(iteration) for iteration in (0, 1000, 1500, 2000)] == [0, 2000, 2500, 3000]
    assert run.last_within(1999) is None and run.last_within(2000) == run.last_within(2999) == 1000


def test_what_a_later_start_does_again_counts_once() -> None:
    first = [
        line(100, 1.0),
        line(200, 1.0),
        validation(200, 30.0),
        line(300, 1.0),
        line(400, 9.0),
        validation(400, 31.0),
    ]
    second = [going_on(250), line(300, 5.0), line(400, 2.0), validation(400, 32.0)]
    run = joined(first, second)
    assert run.starts == 2
    assert [(stretch.first, stretch.last) for stretch in run.stretches] == [
        (0, 100),
        (100, 200),
        (200, 250),
        (250, 300),
        (300, 400),
    ]
    assert {iteration: scores["psnr"] for iteration, scores in run.validations["Set5"].items()} == {200: 30, 400: 32}
    # The line that holds compiling again counts with the median pace, 1 s.
    assert run.computing_seconds(300) == 300 and run.computing_seconds(400) == 500


def test_iterations_between_the_last_line_and_a_stop_are_filled_in() -> None:
    run = joined([line(100, 1.0), line(200, 2.0)], [going_on(250), line(300, 7.0), line(400, 2.0)])
    assert run.computing_seconds(250) == 100 + 200 + 100
    assert run.computing_seconds(400) == 400 + 50 * 2 + 100 * 2


def test_a_start_from_nothing_forgets_what_was_before() -> None:
    run = joined([line(100, 1.0), validation(100, 30.0)], [line(50, 2.0), validation(50, 29.0)])
    assert run.iterations() == [50] and run.computing_seconds(50) == 100


def test_a_start_that_did_nothing_is_none() -> None:
    run = joined([line(100, 1.0), validation(100, 30.0)], [going_on(100)])
    assert run.starts == 1 and run.iterations() == [100]


def test_several_starts_in_one_log_are_told_apart() -> None:
    text = [BEGINNING, NETWORK, line(100, 1.0), BEGINNING, NETWORK, going_on(100), line(200, 1.0)]
    assert [piece.start for piece in read_pieces(text)] == [0, 100]


def test_only_iterations_validated_on_every_set_count() -> None:
    run = joined([line(100, 1.0), validation(100, 30.0), validation(100, 28.0, "B 100"), validation(200, 31.0)])
    assert run.iterations() == [100] and set(run.validations) == {"Set5", "B 100"}


def test_logs_of_a_real_run_in_two_starts(tmp_path: Path) -> None:
    assert train(tmp_path, train__total_iter=4, val__val_freq=2) == 0
    folder = tmp_path / "experiments" / "tiny"
    (log,) = folder.glob("train_*.log")
    log.rename(folder / "train_tiny_00000000_000000.log")  # the second start may fall into the same second
    assert train(tmp_path, "--auto_resume", train__total_iter=8, val__val_freq=2) == 0
    run = read_run(folder)
    assert run.starts == 2 and run.iterations() == [2, 4, 6, 8] and run.network == "MambaIR"
    assert run.parameters > 1000 and run.memory is None and run.hardware[0].startswith("CPU")
    (scores,) = run.validations.values()
    assert set(scores[8]) == {"psnr", "ssim"} and 5 < scores[8]["psnr"] < 60
    assert run.stretches[-1].last == 8 and run.seconds_per_iteration > 0 and run.images_per_second > 0


def test_folders_without_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no train_\*.log"):
        read_run(tmp_path)
    (tmp_path / "train_a.log").write_text(f"{BEGINNING}\n{line(1, 1.0)}\n")
    with pytest.raises(UserError, match="no validated iterations"):
        read_run(tmp_path)
