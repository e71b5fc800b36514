"""One iteration: accumulation, clipping, bad numbers, requests to stop."""

import pytest
import torch
from torch import Tensor, nn

from mambair.data.loaders import LoadedBatch, LoadedStep
from mambair.engine.train.step import NonFiniteError, Stepper
from mambair.losses import L1Loss, LossTerm
from mambair.models.optimizers import ScheduledOptimizer
from mambair.models.restoration_model import RestorationModel
from mambair.runtime.distributed import ProcessGroup

CPU = torch.device("cpu")


def make_model(optim: dict | None = None) -> RestorationModel:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 1, 3, padding=1))
    model = RestorationModel(network, device=CPU, losses={"l_pix": L1Loss()})
    model.optimizers["net_g"] = ScheduledOptimizer(network, optim or {"type": "Adam", "lr": 0.1}, None)
    return model


def micro_batch(lq: Tensor, gt: Tensor, first_draw: int = 0) -> LoadedBatch:
    names = [f"photo_{first_draw + index}.png" for index in range(len(lq))]
    return LoadedBatch({"lq": lq, "gt": gt, "lq_path": names, "gt_path": names}, first_draw)


def make_step(*sizes: int, iteration: int = 0, scale: float = 1.0) -> LoadedStep:
    generator = torch.Generator().manual_seed(iteration)
    total = sum(sizes)
    lq = torch.rand(total, 1, 5, 5, generator=generator)
    gt = torch.rand(total, 1, 5, 5, generator=generator) * scale
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    batches = [
        micro_batch(lq[first : first + size], gt[first : first + size], first)
        for first, size in zip(starts, sizes, strict=True)
    ]
    return LoadedStep(iteration, total, batches)


def weights(model: RestorationModel) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.networks["net_g"].parameters()]


@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 3), (1, 2, 3)])
def test_accumulated_step_equals_the_whole_batch(sizes: tuple[int, ...]) -> None:
    whole, parts = make_model(), make_model()
    first = Stepper(whole, ProcessGroup(), seed=0).step(make_step(6), stop=False)
    second = Stepper(parts, ProcessGroup(), seed=0).step(make_step(*sizes), stop=False)
    torch.testing.assert_close(first.losses["l_pix"], second.losses["l_pix"])
    torch.testing.assert_close(first.norms, second.norms)
    gradients = [[parameter.grad for parameter in model.networks["net_g"].parameters()] for model in (whole, parts)]
    torch.testing.assert_close(*gradients)


def test_gradient_is_clipped_to_the_given_norm() -> None:
    model = make_model()
    result = Stepper(model, ProcessGroup(), seed=0, clip_norm=0.01).step(make_step(4), stop=False)
    clipped = nn.utils.get_total_norm([parameter.grad for parameter in model.networks["net_g"].parameters()])
    assert result.norms["net_g"] > 0.1
    assert clipped.item() == pytest.approx(0.01, rel=1e-3)


def test_request_to_stop_is_passed_on() -> None:
    stepper = Stepper(make_model(), ProcessGroup(), seed=0)
    stepper.step(make_step(2), stop=False)
    assert not stepper.stop
    stepper.step(make_step(2), stop=True)
    assert stepper.stop


def test_non_finite_loss_names_the_files_and_leaves_the_weights() -> None:
    model = make_model()
    loaded = make_step(2, 2, iteration=7)
    loaded.micro_batches[1].content["gt"][0] = float("nan")
    before = weights(model)
    with pytest.raises(NonFiniteError) as caught:
        Stepper(model, ProcessGroup(), seed=0).step(loaded, stop=False)
    assert str(caught.value) == (
        "iteration 8: the loss is not finite (l_pix); files of the batch: photo_2.png, photo_3.png"
    )
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_non_finite_gradient_of_a_finite_loss_is_noticed() -> None:
    class RootLoss(nn.Module):
        """Zero, with an infinite slope, where prediction and target agree."""

        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            return (prediction * 0).abs().sqrt().mean()

    model = make_model()
    model.losses = {"l_pix": LossTerm(RootLoss())}
    with pytest.raises(NonFiniteError, match=r"iteration 1: the gradient norm is not finite; files .* photo_0\.png"):
        Stepper(model, ProcessGroup(), seed=0).step(make_step(2), stop=False)


def test_bad_steps_in_a_row_are_skipped_up_to_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model()
    model.add_average("net_g", 0.5)
    stepper = Stepper(model, ProcessGroup(), seed=0, skip_nonfinite=2)
    before = weights(model)
    for iteration in range(2):
        stepper.step(make_step(2, iteration=iteration, scale=float("inf")), stop=False)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    assert "iteration 2: the loss is not finite" in caplog.text
    assert "the step is skipped (2 in a row)" in caplog.text
    stepper.step(make_step(2, iteration=2), stop=False)  # a good one begins the count anew
    for iteration in (3, 4):
        stepper.step(make_step(2, iteration=iteration, scale=float("inf")), stop=False)
    with pytest.raises(NonFiniteError, match="iteration 6"):
        stepper.step(make_step(2, iteration=5, scale=float("inf")), stop=False)


def test_loss_spike_is_logged_with_its_files(caplog: pytest.LogCaptureFixture) -> None:
    stepper = Stepper(make_model({"type": "Adam", "lr": 1e-4}), ProcessGroup(), seed=0)
    for iteration in range(110):
        stepper.step(make_step(1, iteration=iteration), stop=False)
    assert "jumped" not in caplog.text
    stepper.step(make_step(1, iteration=110, scale=100.0), stop=False)
    assert "iteration 111: the loss jumped; files of the batch: photo_0.png" in caplog.text


@pytest.mark.parametrize("by_settling", [True, False])
def test_a_step_that_does_not_wait_shows_its_bad_numbers_in_the_next(by_settling: bool) -> None:
    stepper = Stepper(make_model(), ProcessGroup(), seed=0)
    stepper._waits = False  # as on a GPU
    stepper.step(make_step(2), stop=True)
    assert not stepper.stop
    stepper.step(make_step(2, iteration=1, scale=float("inf")), stop=False)
    assert stepper.stop
    with pytest.raises(NonFiniteError, match=r"iteration 2: the loss is not finite"):
        stepper.settle() if by_settling else stepper.step(make_step(2, iteration=2), stop=False)
    assert stepper.settle()  # said once


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_fp16_overflow_is_not_an_error() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 3, padding=1)
    model = RestorationModel(
        network, device=torch.device("cuda"), losses={"l_pix": L1Loss(1e4)}, amp_dtype=torch.float16
    )
    model.optimizers["net_g"] = ScheduledOptimizer(network, {"type": "Adam", "lr": 1e-3}, None)
    stepper = Stepper(model, ProcessGroup(), seed=0)
    scale = stepper.scaler.get_scale()
    before = weights(model)
    stepper.step(make_step(2), stop=False)
    assert stepper.scaler.get_scale() < scale
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    for iteration in range(1, 20):
        stepper.step(make_step(2, iteration=iteration), stop=False)
    assert not all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
