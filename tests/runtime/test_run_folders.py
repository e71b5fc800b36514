import re
from pathlib import Path

import pytest

from mambair.errors import UserError
from mambair.runtime.run_folders import prepare_experiment_folder, prepare_results_folder, save_options


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run(tmp_path: Path) -> None:
    folders = prepare_experiment_folder(tmp_path, "run", resume=False)
    assert folders.root == tmp_path / "experiments" / "run"
    assert names(folders.root) == ["models", "training_states", "visualization"]
    assert re.fullmatch(r"train_run_\d{8}_\d{6}\.log", folders.log.name) and folders.log.parent == folders.root
    assert folders.tb == tmp_path / "tb_logger" / "run"
    assert folders.archived == ()


def test_an_existing_run_is_archived_whole(tmp_path: Path) -> None:
    first = prepare_experiment_folder(tmp_path, "run", resume=False)
    (first.models / "net_g_5.pth").write_bytes(b"weights")
    first.tb.mkdir(parents=True)
    (first.tb / "events").write_text("x")
    (first.root / ".tmp-0123.yml").write_text("half")
    second = prepare_experiment_folder(tmp_path, "run", resume=False)
    experiment, board = second.archived
    assert re.fullmatch(r"run_archived_\d{8}_\d{6}", experiment.name)
    assert (experiment / "models" / "net_g_5.pth").read_bytes() == b"weights"
    assert (board / "events").read_text() == "x" and not second.tb.exists()
    assert not list(tmp_path.rglob(".tmp-*"))
    assert names(second.models) == []


def test_archiving_often_within_a_second_loses_nothing(tmp_path: Path) -> None:
    for number in range(5):
        folders = prepare_experiment_folder(tmp_path, "run", resume=False)
        (folders.models / f"{number}.pth").touch()
    kept = sorted(path.name for path in tmp_path.rglob("*.pth"))
    assert kept == ["0.pth", "1.pth", "2.pth", "3.pth", "4.pth"]


def test_resume_goes_on_and_removes_temporary_files(tmp_path: Path) -> None:
    first = prepare_experiment_folder(tmp_path, "run", resume=False)
    (first.models / "net_g_5.pth").write_bytes(b"weights")
    (first.models / ".tmp-0123.pth").write_bytes(b"half")
    second = prepare_experiment_folder(tmp_path, "run", resume=True)
    assert second.archived == () and names(second.models) == ["net_g_5.pth"]


def test_results_are_archived_too(tmp_path: Path) -> None:
    first = prepare_results_folder(tmp_path, "run")
    (first.root / "metrics.json").write_text("{}")
    second = prepare_results_folder(tmp_path, "run")
    assert (second.archived[0] / "metrics.json").read_text() == "{}"
    assert names(second.root) == ["visualization"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "experiments").write_text("a file")
    with pytest.raises(UserError, match=r"experiments/run/models: cannot make the folder: .*check path\.root"):
        prepare_experiment_folder(tmp_path, "run", resume=False)


def test_option_files_are_kept_beside_the_run(tmp_path: Path) -> None:
    option_file = tmp_path / "SR.yml"
    option_file.write_text("name: a # mine\n")
    folder = tmp_path / "run"
    save_options(folder, option_file, "name: a\nscale: 1\n")
    save_options(folder, option_file, "name: a\nscale: 1\n")
    assert names(folder) == ["SR.yml", "effective_options.yml"]
    assert (folder / "SR.yml").read_text() == "name: a # mine\n"
    option_file.write_text("name: b\n")
    save_options(folder, option_file, "name: a\nscale: 1\n")
    assert (folder / "SR.yml").read_text() == "name: a # mine\n"
    (newer,) = folder.glob("SR_*.yml")
    assert newer.read_text() == "name: b\n"
