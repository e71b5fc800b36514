import pytest
import torch

from mambair.errors import UserError
from mambair.runtime.devices import autocast_dtype, select_device

CPU = torch.device("cpu")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_cpu_is_taken_when_asked_for_or_alone(no_cuda: None) -> None:
    assert select_device(0) == CPU
    assert select_device("auto") == CPU


def test_asking_for_cuda_without_cuda_says_what_to_do(no_cuda: None) -> None:
    with pytest.raises(UserError, match=r"num_gpu: 8 asks for CUDA, but .*--force_yml num_gpu=0"):
        select_device(8)


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="process 3 of this machine has no GPU of its own, there are 2"):
        select_device("auto", local_rank=2)


@pytest.mark.parametrize(("amp", "expected"), [("none", None), ("auto", None), ("bf16", torch.bfloat16)])
def test_precision_on_the_cpu(amp: str, expected: torch.dtype | None) -> None:
    assert autocast_dtype(amp, CPU) is expected


@pytest.mark.parametrize(
    ("has_bf16", "amp", "expected"),
    [
        (True, "auto", torch.bfloat16),
        (True, "fp16", torch.float16),
        (True, "none", None),
        (False, "auto", torch.float16),
        (False, "fp16", torch.float16),
    ],
)
def test_precision_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, amp: str, expected: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert autocast_dtype(amp, torch.device("cuda", 0)) is expected


def test_precision_that_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="fp16 needs a CUDA GPU"):
        autocast_dtype("fp16", CPU)
    with pytest.raises(UserError, match="expected auto, none, bf16 or fp16, got 'half'"):
        autocast_dtype("half", CPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(UserError, match="does not compute in bf16"):
        autocast_dtype("bf16", torch.device("cuda", 0))
