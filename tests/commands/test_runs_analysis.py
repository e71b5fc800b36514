"""`mambair analyze curves` and `runs` on tiny runs."""

from pathlib import Path

import pytest

from mambair.analysis.training_logs import read_run
from mambair.commands.analyze import main
from mambair.commands.run_list import describe_runs
from mambair.errors import UserError
from mambair.imaging.files import read_image
from tests.engine.tiny_run import NETWORK, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """experiments/ with the run `tiny` of 6 iterations, `wide` of 4 and `odd`, validated at other iterations."""
    root = tmp_path_factory.mktemp("runs")
    schedule = {"val__val_freq": 2, "logger__print_freq": 1}
    assert train(root, **schedule) == 0
    assert train(root, **schedule, name="wide", train__total_iter=4, network_g=NETWORK | {"embed_dim": 12}) == 0
    assert train(root, **(schedule | {"val__val_freq": 5}), name="odd", train__total_iter=5) == 0
    return root / "experiments"


def cells(text: str) -> list[list[list[str]]]:
    """The tables of a page."""
    tables: list[list[list[str]]] = [[]]
    for row in text.splitlines():
        if row.startswith("|") and "---" not in row:
            tables[-1].append([cell.strip() for cell in row[1:-1].split("|")])
        elif tables[-1] and not row.startswith("|"):
            tables.append([])
    return [table for table in tables if table]


def test_curves_and_tables(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure, table = tmp_path / "docs" / "curves.png", tmp_path / "docs" / "table.md"
    arguments = ["curves", str(runs / "tiny"), f"wide one={runs / 'wide'}", "--figure", str(figure)]
    assert main([*arguments, "--table", str(table), "--reference", "bicubic=33.67"]) == 0
    assert read_image(figure).std() > 10
    pace, equal_iterations, equal_time = cells(table.read_text(encoding="utf-8"))
    assert [row[0] for row in pace[1:]] == ["tiny", "wide one"] and float(pace[1][5]) > 0
    assert equal_iterations[0][1:] == ["iterations", "hours", "held_out PSNR", "held_out SSIM"]
    assert [row[1] for row in equal_iterations[1:]] == ["4", "4"]
    tiny, wide = (read_run(runs / name) for name in ("tiny", "wide"))
    assert equal_iterations[1][3] == f"{tiny.validations['held_out'][4]['psnr']:.2f}"
    assert equal_iterations[2][3] == f"{wide.validations['held_out'][4]['psnr']:.2f}"
    seconds = min(tiny.device_seconds(6), wide.device_seconds(4))
    expected = [run.last_within(seconds) for run in (tiny, wide)]
    assert [row[1] for row in equal_time[1:]] == ["-" if each is None else str(each) for each in expected]


def test_curves_without_common_points(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["curves", str(runs / "tiny"), str(runs / "odd")]) == 0
    printed = capsys.readouterr().out
    assert "At their last validations" in printed
    assert [row[:2] for row in cells(printed)[1][1:]] == [["tiny", "6"], ["odd", "5"]]
    pytest.importorskip("matplotlib")
    figure = tmp_path / "curves.svg"
    arguments = ["curves", str(runs / "tiny"), str(runs / "odd"), "-o", str(figure), "--metric", "ssim"]
    assert main(arguments) == 0
    assert "odd" in figure.read_text() and "SSIM on held_out" in figure.read_text()


def test_what_does_not_fit_is_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("matplotlib")
    tiny, output = str(runs / "tiny"), ["--figure", str(tmp_path / "a.png")]
    for wrong, message in (
        (["--reference", "bicubic"], "--reference bicubic: write NAME=VALUE"),
        (["--reference", "bicubic=high"], "--reference bicubic=high: write NAME=VALUE"),
        (["--reference", "a=1", "--reference", "a=2"], "--reference a=2: the name a is given twice"),
        (["--dataset", "Set9"], "there are: held_out"),
        (["--metric", "lpips"], "no run was validated on held_out by it"),
    ):
        assert main(["curves", tiny, *output, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert main(["curves", str(tmp_path), *output]) == 2
    assert "experiments/<name>" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_list_of_runs(runs: Path, capsys: pytest.CaptureFixture) -> None:
    odd, tiny, wide = describe_runs([runs])
    assert [run.name for run in (odd, tiny, wide)] == ["odd", "tiny", "wide"]
    assert (tiny.iterations, wide.iterations) == ("6 of 6", "4 of 4")
    assert wide.differs["network_g.embed_dim"] == "12" and tiny.differs["network_g.embed_dim"] == "8"
    assert odd.differs["val.val_freq"] == "5"
    assert set(tiny.differs) == {"network_g.embed_dim", "train.total_iter", "val.val_freq"}
    best = read_run(runs / "tiny").validations["held_out"]
    iteration = max(best, key=lambda each: best[each]["psnr"])
    assert f"held_out psnr {best[iteration]['psnr']:.2f} at {iteration}" in tiny.best
    assert tiny.hours.endswith(" h")
    assert main(["runs", str(runs)]) == 0
    assert "embed_dim" in capsys.readouterr().out
    assert main(["runs", str(runs / "tiny"), str(runs / "wide")]) == 0
    assert "val_freq" not in capsys.readouterr().out  # it is the same in these


def test_a_data_set_that_not_all_runs_have_is_told_in_two_lines(runs: Path, tmp_path: Path) -> None:
    assert train(tmp_path, name="blind", train__total_iter=2, val=None, datasets__val=None) == 0
    blind, tiny = describe_runs([tmp_path / "experiments", runs / "tiny"])
    of_data = [key for key in tiny.differs if key.startswith("datasets.val.")]
    assert of_data == ["datasets.val.type", "datasets.val.dataroot_gt"]
    assert not any(key.startswith("datasets.val") for key in blind.differs)


def test_runs_that_cannot_be_read_are_listed(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "effective_options.yml").write_text("name: [", encoding="utf-8")
    listed = describe_runs([runs / "tiny", tmp_path])
    assert [run.name for run in listed] == ["tiny", "broken"] and "cannot be read" in listed[1].best
    with pytest.raises(UserError, match="no training runs here"):
        describe_runs([runs / "tiny" / "models"])
    with pytest.raises(UserError, match="no such folder"):
        describe_runs([tmp_path / "nowhere"])
