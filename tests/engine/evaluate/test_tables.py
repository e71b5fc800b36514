import json
import math
from pathlib import Path

from rich.console import Console

from mambair.engine.evaluate.scoring import Scores
from mambair.engine.evaluate.tables import Row, format_value, make_table, metrics_json, write_json

BETTER = {"psnr": True, "niqe": False}


def row(name: str, psnr: float, niqe: float, *, is_network: bool = True) -> Row:
    return Row(name, {"Set5": Scores({"baby": {"psnr": psnr, "niqe": niqe}})}, is_network)


def test_best_and_second_best_among_networks_only() -> None:
    rows = [row("Bicubic", 99, 1, is_network=False), row("A", 30, 5), row("B", 31, 4), row("C", 29, 3)]
    table = make_table(rows, BETTER)
    lines = table.as_markdown().splitlines()
    assert lines[0] == "|  | Set5 PSNR | Set5 NIQE |"
    assert lines[2] == "| Bicubic | 99.00 | 1.0000 |"
    assert lines[3] == "| A | <u>30.00</u> | 5.0000 |"
    assert lines[4] == "| B | **31.00** | <u>4.0000</u> |"
    assert lines[5] == "| C | 29.00 | **3.0000** |"


def test_equal_values_are_marked_alike_and_a_single_network_is_not() -> None:
    assert make_table([row("A", 30, 5), row("B", 30, 5)], BETTER).as_markdown().count("**30.00**") == 2
    assert "*" not in make_table([row("A", 30, 5)], BETTER).as_markdown()


def test_missing_data_sets_leave_a_dash() -> None:
    other = Row("B", {"Set14": Scores({"baboon": {"psnr": 20.0}})})
    table = make_table([row("A", 30, 5), other], BETTER).as_markdown()
    assert "| A | 30.00 | 5.0000 | - |" in table
    assert "| B | - | - | 20.00 |" in table


def test_names_with_markup_come_out_as_they_are() -> None:
    table = make_table([row("x2 [bold]| weird", 30, 5)], BETTER)
    assert "x2 [bold]\\| weird" in table.as_markdown()
    console = Console(width=100, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(table.for_terminal("title"))
    assert "x2 [bold]| weird" in capture.get()


def test_mean_is_over_the_images_that_have_the_metric() -> None:
    scores = Scores({"a": {"psnr": 30.0, "niqe": 4.0}, "b": {"psnr": 40.0}})
    assert scores.means() == {"psnr": 35.0, "niqe": 4.0}
    assert scores.as_json()["images"]["b"] == {"psnr": 40.0}


def test_numbers() -> None:
    assert [format_value("psnr", 33.654), format_value("ssim", 0.92991), format_value("psnr", None)] == [
        "33.65",
        "0.9299",
        "-",
    ]
    assert format_value("psnr", math.inf) == "inf"


def test_json_is_json_with_infinite_values_too(tmp_path: Path) -> None:
    content = metrics_json(row("A", math.inf, 5), None, options={}, weights="a.pth", protocol={})
    write_json(tmp_path / "metrics.json", content)
    read = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda text: None)
    assert read["datasets"]["Set5"]["psnr"] == "inf"
