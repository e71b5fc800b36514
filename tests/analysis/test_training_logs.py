"""Reading training logs: real ones of tiny runs, and made ones whose figures are known."""

from pathlib import Path

import pytest

from mambair.analysis.log_lines import Devices, Memory, read_pieces
from mambair.analysis.training_logs import device_time, join_pieces, read_run
from mambair.data.samplers import BatchPlan
from mambair.errors import UserError
from tests.engine.tiny_run import train

BEGINNING = (
    "2026-01-01 00:00:00,000 INFO: a run on BSD in /experiments/a run on NVIDIA H100 "
    "(mambair 1.0, PyTorch 2.11.0+cu128, Python 3.11.2)"
)
NETWORK = "2026-01-01 00:00:00,000 INFO: net_g: MambaIR, 905,016 parameters"


def shared_out(processes: int, micro_batch: int, steps: int, stage: str = "") -> str:
    """The line as the loader writes it, before BEGINNING."""
    plan = BatchPlan(processes * micro_batch * steps, processes, micro_batch, steps)
    return f"2026-01-01 00:00:00,000 INFO: {stage}{plan}"


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


def joined(*starts: list[str], plans: tuple[tuple[str, ...], ...] = ()):
    """The run of these starts; `plans`: the lines before BEGINNING of each."""
    plans = plans or ((),) * len(starts)
    logs = [[*plan, BEGINNING, NETWORK, *start] for plan, start in zip(plans, starts, strict=True)]
    return join_pieces("run", [piece for log in logs for piece in read_pieces(log)])


def test_one_start() -> None:
    run = joined([line(1000, 2.0), validation(1000, 30.0), line(2000, 1.5, 0.5, 4.5), validation(2000, 31.5)])
    assert (run.network, run.parameters, run.memory) == ("MambaIR", 905_016, Memory(4.5, None))
    assert run.devices == (Devices("NVIDIA H100", 1),) and str(run.devices[0]) == "1 x NVIDIA H100"
    assert run.validations == {"Set5": {1000: {"psnr": 30, "ssim": 0.9}, 2000: {"psnr": 31.5, "ssim": 0.9}}}
    assert run.seconds_per_iteration == 1.0 and run.waiting_per_iteration == 0.5
    assert run.images_per_second == pytest.approx(8, rel=0.01)
    # The first line holds compiling, once, and waiting for data does not count.
    assert [run.device_seconds(iteration) for iteration in (0, 1000, 1500, 2000)] == [0, 2000, 2500, 3000]
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
    assert run.device_seconds(300) == 300 and run.device_seconds(400) == 500


def test_iterations_that_no_line_tells_of_count_with_the_median_pace() -> None:
    run = joined([line(100, 1.0), line(200, 2.0)], [going_on(250), line(300, 7.0), line(400, 2.0)])
    assert run.device_seconds(250) == 100 + 200 + 100
    assert run.device_seconds(400) == 400 + 50 * 2 + 100 * 2
    # A validation after the last line, too.
    run = joined([line(100, 1.0), line(200, 2.0), validation(250, 30.0)])
    assert run.device_seconds(250) == 100 + 200 + 100


def test_time_is_that_of_all_devices() -> None:
    two, one = (shared_out(2, 16, 1),), (shared_out(1, 16, 2),)
    first = [line(100, 3.0, batch=32), line(200, 1.0, 0.25, batch=32), validation(200, 30.0), line(300, 1.0, batch=32)]
    second = [going_on(250), line(300, 9.0, batch=32), line(400, 1.5, batch=32), validation(400, 31.0)]
    run = joined(first, second, plans=(two, one))
    assert run.devices == (Devices("NVIDIA H100", 2), Devices("NVIDIA H100", 1))
    # 300 device seconds on two GPUs are 600; 1 s less 0.25 of waiting on two are 1.5, of the 50 kept of 100: 2.
    assert [run.device_seconds(iteration) for iteration in (100, 200, 250)] == [600, 750, 850]
    # What compiles again on one GPU counts as what came later on one GPU.
    assert run.device_seconds(300) == 850 + 50 * 1.5 and run.device_seconds(400) == 850 + 150 * 1.5
    assert run.seconds_per_iteration == 1.5 and run.waiting_per_iteration == 0
    assert run.images_per_second == pytest.approx(32 / 1.5, rel=0.01)
    assert run.last_within(749) is None and run.last_within(750) == run.last_within(1074) == 200
    assert run.last_within(1075) == 400
    # The same on one GPU takes the same seconds, and half the device time until there.
    alone = joined(first, second, plans=(one, one))
    assert alone.device_seconds(250) == 425 and alone.devices == (Devices("NVIDIA H100", 1),)


def test_what_no_line_tells_of_was_done_on_the_devices_of_its_start() -> None:
    two, one = (shared_out(2, 16, 1),), (shared_out(1, 16, 2),)
    run = joined(
        [line(100, 5.0), line(200, 1.0)],  # and on to 250
        [going_on(250)],  # on to 280
        [going_on(280), line(300, 9.0), line(400, 3.0), validation(400, 30.0)],
        plans=(two, one, two),
    )
    assert [(each.first, each.last, each.devices.count) for each in run.stretches] == [
        (0, 100, 2),
        (100, 200, 2),
        (200, 250, 2),
        (250, 280, 1),
        (280, 300, 2),
        (300, 400, 2),
    ]
    assert run.starts == 2
    # No line tells of one GPU's pace: the median of all, of 2 and 6 device seconds.
    assert run.device_seconds(280) == 1000 + 200 + 50 * 4 + 30 * 4


def test_the_first_line_of_the_run_holds_its_compiling_even_if_it_is_that_of_a_later_start() -> None:
    run = joined([], [going_on(50), line(100, 9.0), line(200, 1.0)], [going_on(200), line(300, 9.0), line(400, 1.0)])
    assert run.device_seconds(100) == 50 + 50 * 9 and run.device_seconds(400) == 500 + 300


def test_how_the_batch_is_shared_out_belongs_to_the_start_that_follows() -> None:
    starts = [shared_out(4, 8, 1), BEGINNING, line(100, 1.0), BEGINNING, going_on(100), line(200, 1.0)]
    starts += [shared_out(1, 8, 4), BEGINNING, going_on(200), line(300, 1.0)]
    assert [piece.devices.count for piece in read_pieces(starts)] == [4, 1, 1]


def test_memory_comes_with_the_images_at_once_of_the_start_that_needed_most() -> None:
    plans = (shared_out(2, 16, 1),), (shared_out(1, 32, 1),), (shared_out(4, 8, 1),)
    starts = [line(100, 1.0, memory=3.1)], [going_on(100), line(200, 1.0, memory=6.0)], [going_on(200), line(300, 1.0)]
    assert joined(*starts, plans=plans).memory == Memory(6.0, 32)
    # Progressive training: of the stage in which it was needed.
    stages = (
        shared_out(2, 8, 1, "from iteration 0, patches of 128: "),
        shared_out(2, 5, 1, "from iteration 100, patches of 160: "),
        shared_out(2, 4, 1, "from iteration 200, patches of 192: "),
    )
    lines = [line(100, 1.0, memory=5.0), line(200, 1.0, memory=7.5), line(300, 1.0, memory=7.5)]
    assert joined(lines, plans=(stages,)).memory == Memory(7.5, 5)


def test_device_time_is_named_after_what_it_is() -> None:
    def run(hardware: str, processes: int):
        lines = [shared_out(processes, 4, 1), BEGINNING.replace("NVIDIA H100", hardware), line(100, 1.0)]
        return join_pieces("run", read_pieces(lines))

    gpus, cpu, cpus = run("NVIDIA H100", 2), run("CPU, 4 threads", 1), run("CPU, 4 threads", 2)
    assert device_time([gpus, gpus], "hours") == "GPU hours" and device_time([cpu], "hours") == "hours"
    assert device_time([cpu, cpus], "hours") == "process hours" and device_time([gpus, cpu], "s") == "process s"


def test_a_start_from_nothing_forgets_what_was_before() -> None:
    run = joined([line(100, 1.0), validation(100, 30.0)], [line(50, 2.0), validation(50, 29.0)])
    assert run.iterations() == [50] and run.device_seconds(50) == 100


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
    assert run.parameters > 1000 and run.memory is None
    assert run.devices[0].name.startswith("CPU") and not run.devices[0].are_gpus and run.devices[0].count == 1
    (scores,) = run.validations.values()
    assert set(scores[8]) == {"psnr", "ssim"} and 5 < scores[8]["psnr"] < 60
    assert run.stretches[-1].last == 8 and run.seconds_per_iteration > 0 and run.images_per_second > 0


def test_folders_without_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no train_\*.log"):
        read_run(tmp_path)
    (tmp_path / "train_a.log").write_text(f"{BEGINNING}\n{line(1, 1.0)}\n")
    with pytest.raises(UserError, match="no validated iterations"):
        read_run(tmp_path)
