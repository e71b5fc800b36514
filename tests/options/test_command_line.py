from pathlib import Path

import pytest

from mambair.options import RunArguments, parse_run_arguments


def parse(*arguments: str) -> RunArguments:
    return parse_run_arguments(arguments, "train", "Train a network.")


def test_what_basicsr_users_type() -> None:
    arguments = parse("-opt", "options/train/SR_x2.yml", "--launcher", "pytorch", "--auto_resume", "--debug")
    assert arguments == RunArguments(Path("options/train/SR_x2.yml"), "pytorch", True, True, 0, ())


def test_defaults_and_both_spellings() -> None:
    assert parse("--opt", "x.yml") == RunArguments(Path("x.yml"), "none", False, False, 0, ())
    assert parse("-opt", "x.yml", "--local_rank=3").local_rank == 3
    assert parse("-opt", "x.yml", "--local-rank", "2").local_rank == 2


def test_force_yml_takes_several_and_repeats() -> None:
    arguments = parse("-opt", "x.yml", "--force_yml", "a=1", "b:c=[1, 2]", "--debug", "--force_yml", "d= ~")
    assert arguments.force_yml == ("a=1", "b:c=[1, 2]", "d= ~")
    assert arguments.debug


@pytest.mark.parametrize(
    "arguments", [(), ("-opt",), ("-opt", "x.yml", "--launcher", "mpi"), ("-opt", "x.yml", "--auto"), ("x.yml",)]
)
def test_mistakes_exit_with_code_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == 2
    assert "usage: train" in capsys.readouterr().err
