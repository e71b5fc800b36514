import math

import pytest
import torch

import mambair.losses  # noqa: F401  (registers the losses)
from mambair.errors import UserError
from mambair.registry import LOSSES

TARGET = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
PREDICTION = torch.tensor([[[[0.5, -0.25]]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": "L1Loss"}, 0.375),
        ({"type": "L1Loss", "reduction": "sum", "loss_weight": 2.0}, 1.5),
        ({"type": "MSELoss"}, (0.25 + 0.0625) / 2),
        ({"type": "CharbonnierLoss"}, (math.sqrt(0.25 + 1e-3) + math.sqrt(0.0625 + 1e-3)) / 2),
        ({"type": "CharbonnierLoss", "eps": 1e-6}, (math.sqrt(0.25 + 1e-6) + math.sqrt(0.0625 + 1e-6)) / 2),
    ],
)
def test_values(options: dict, expected: float) -> None:
    assert LOSSES.build(options)(PREDICTION, TARGET).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", ["L1Loss", "MSELoss", "CharbonnierLoss"])
def test_gradients(name: str) -> None:
    loss = LOSSES.build({"type": name})
    prediction = (torch.rand(2, 3, 4, 5, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.zeros(2, 3, 4, 5, dtype=torch.float64)), prediction)


def test_charbonnier_gradient_is_finite_where_prediction_equals_target() -> None:
    prediction = torch.zeros(1, 3, 4, 4, requires_grad=True)
    LOSSES.build({"type": "CharbonnierLoss", "eps": 1e-6})(prediction, torch.zeros(1, 3, 4, 4)).backward()
    assert torch.equal(prediction.grad, torch.zeros(1, 3, 4, 4))


def test_half_precision_predictions_are_compared_in_full_precision() -> None:
    prediction = torch.full((1, 1, 64, 64), 0.5, dtype=torch.bfloat16)
    loss = LOSSES.build({"type": "MSELoss"})(prediction, torch.full((1, 1, 64, 64), 0.501))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e-6, rel=1e-3)


def test_unknown_key_and_reduction_are_user_errors() -> None:
    with pytest.raises(UserError, match="pixel_opt: unknown key 'weight'"):
        LOSSES.build({"type": "L1Loss", "weight": 1.0}, where="pixel_opt")
    with pytest.raises(UserError, match="reduction 'avg' is not known"):
        LOSSES.build({"type": "L1Loss", "reduction": "avg"})
