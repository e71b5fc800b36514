"""train: compile and cuda_graph: what auto decides on the CPU, and the message where a graph is asked for in vain."""

from pathlib import Path

import pytest
import torch

from mambair.engine.train.passes import PlainPasses
from mambair.engine.train.run import COMPILE_PAYS_FROM, TrainingRun
from mambair.options import parse_train_options
from mambair.runtime.distributed import ProcessGroup
from tests.engine import tiny_run
from tests.engine.train.test_version_2 import V2


def build(root: Path, **changes: object) -> TrainingRun:
    options = tiny_run.write_options(root, tiny_run.train_options(root, num_gpu=0, **changes))
    return TrainingRun(parse_train_options(options), ProcessGroup())


def test_the_cpu_trains_plainly(tmp_path: Path) -> None:
    run = build(tmp_path, train__total_iter=2 * COMPILE_PAYS_FROM)
    assert isinstance(run.stepper.passes, PlainPasses)
    assert not run._use_compile()


def test_compiling_is_done_where_it_is_asked_for(tmp_path: Path) -> None:
    assert build(tmp_path, train__compile=True)._use_compile()


def test_a_graph_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert tiny_run.train(tmp_path, num_gpu=0, train__cuda_graph=True) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "train.cuda_graph: CUDA graphs need a CUDA GPU; set it to auto or false" in error


@pytest.mark.parametrize("network", [{}, {"network_g": V2, "model_type": "MambaIRv2LightModel"}], ids=["1", "2"])
@pytest.mark.parametrize(("graphs", "compiled"), [(True, False), (False, True)])
def test_auto_compiles_what_gains_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: dict, graphs: bool, compiled: bool
) -> None:
    """The blocks of both versions are faster as they are where graphs start them."""
    run = build(tmp_path, train__total_iter=2 * COMPILE_PAYS_FROM, **network)
    monkeypatch.setattr(run.model, "device", torch.device("cuda"))
    monkeypatch.setattr(run, "_use_graphs", lambda: graphs)
    assert run._use_compile() is compiled
