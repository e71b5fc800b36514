"""The networks against the published code: names, shapes, counts, outputs, gradients."""

import numpy as np
import pytest
import torch

from mambair.archs import build_network

LAYOUTS = [
    *(f"MambaIR_{task}_x{scale}" for task in ("SR", "lightSR") for scale in (2, 3, 4)),
    "MambaIR_ColorDN_level15",
    "MambaIR_CAR_q10",
    "MambaIR_RealDN",
    *(f"MambaIRv2_{task}_x{scale}" for task in ("SR", "SRSmall", "SRLarge", "lightSR") for scale in (2, 3, 4)),
    *(f"MambaIRv2_ColorDN_level{sigma}" for sigma in (15, 25, 50)),
    *(f"MambaIRv2_CAR_q{quality}" for quality in (10, 30, 40)),
    "MambaIRv2_nearestconv_x4",
]
V2_GRADIENTS = ["v2light_small_argmax_grads", "v2base_small_argmax_grads"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_names_shapes_and_order_as_published(name, layouts):
    layout = layouts[name]
    with torch.device("meta"):
        network = build_network(layout["options"])
    state = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert state == layout["state"]
    assert list(state) == list(layout["state"])  # saved optimisers know parameters by their position
    assert sum(parameter.numel() for parameter in network.parameters()) == layout["params"]


@pytest.mark.parametrize(
    "case",
    [
        *("classic_x4", "dn_color", "car_gray", "light_x2_official", "light_x2_small", "unet_small"),
        *("v2light_x2_argmax", "v2base_gray_x1_argmax", *V2_GRADIENTS),
    ],
)
def test_output_as_published(case, golden, fill):
    arrays, meta = golden(case)
    network = fill(build_network(meta["options"]), meta["seed"])
    with torch.no_grad():
        output = network(torch.from_numpy(arrays["input"])).numpy()
    error = np.abs(output - arrays["output"]).max() / np.abs(arrays["output"]).max()
    assert error < 1e-5


@pytest.mark.parametrize("case", ["dn_color", "light_x2_small", "unet_small"])
def test_gradients_as_published(case, golden, fill):
    arrays, meta = golden(case)
    network = fill(build_network(meta["options"]), meta["seed"])
    x = torch.from_numpy(arrays["input"]).requires_grad_()
    output = network(x)
    weight = np.random.default_rng(meta["seed"] + 2000).standard_normal(output.shape).astype(np.float32)
    (output * torch.from_numpy(weight)).sum().backward()
    error = np.abs(x.grad.numpy() - arrays["grad_input"]).max() / np.abs(arrays["grad_input"]).max()
    assert error < 1e-4
    gradients = {name: parameter.grad.double() for name, parameter in network.named_parameters()}
    for name, norm, total in zip(arrays["grad_keys"], arrays["grad_l2"], arrays["grad_sum"], strict=True):
        assert abs(gradients[name].norm().item() - norm) < 1e-4 * norm, name
        assert abs(gradients[name].sum().item() - total) < 1e-4 * norm * gradients[name].numel() ** 0.5, name


@pytest.mark.parametrize("case", V2_GRADIENTS)
def test_gradients_of_version_2_as_published(case, golden, fill):
    """Made without noise: the gradient of the routing goes straight through the choice, in eval mode too."""
    arrays, meta = golden(case)
    network = fill(build_network(meta["options"]), meta["seed"])
    x = torch.from_numpy(arrays["input"]).requires_grad_()
    (network(x) * torch.from_numpy(arrays["loss_weight"])).sum().backward()
    gradients = {"input": x.grad, **{name: parameter.grad for name, parameter in network.named_parameters()}}
    expected = {key.removeprefix("grad/"): value for key, value in arrays.items() if key.startswith("grad/")}
    assert len(expected) > 40
    for name, value in expected.items():
        error = np.abs(gradients[name].numpy() - value).max() / np.abs(value).max()
        assert error < 1e-4, name
