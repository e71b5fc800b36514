"""mambair train keeps freed memory on the CPU, and only there."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mambair.commands import train

RECIPE = Path(__file__).resolve().parents[2] / "options/train/lightSR_x2.yml"


@pytest.mark.parametrize(("device", "kept"), [("cpu", ["kept", "run"]), ("cuda", ["run"])])
def test_freed_memory_is_kept_before_a_run_on_the_cpu(
    device: str, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    model = SimpleNamespace(device=torch.device(device))
    run = SimpleNamespace(model=model, run=lambda debug: done.append("run"))
    monkeypatch.setattr(train, "TrainingRun", lambda *arguments: run)
    monkeypatch.setattr(train, "refuse_mistakes", lambda options: None)
    monkeypatch.setattr(train, "keep_freed_memory", lambda: done.append("kept"))
    monkeypatch.setattr(train, "run_together", lambda arguments, dist_params, work: work(SimpleNamespace(rank=1)) or 0)
    assert train.main(["-opt", str(RECIPE)]) == 0
    assert done == kept
