"""Channel activation of the last VSSM."""

import numpy as np
import pytest
import torch
from torch import nn

from mambair.analysis.activation import channel_activations, summarise
from mambair.archs import build_network
from mambair.errors import UserError


def test_it_is_the_mean_of_the_rectified_output_of_the_last_vssm() -> None:
    torch.manual_seed(0)
    network = build_network({"type": "MambaIR", "embed_dim": 12, "depths": [1, 1], "d_state": 4}).eval()
    with torch.no_grad():  # the last projection puts out the same value at each pixel, up to the sign of channels
        last = network.layers[1].residual_group.blocks[0].self_attention
        last.out_proj.weight.zero_()
        last.out_proj.register_forward_hook(lambda module, inputs, output: output + torch.arange(-6.0, 6.0))
    values = channel_activations(network, [torch.rand(3, 5, 6), torch.rand(3, 4, 4)])
    np.testing.assert_allclose(values, np.maximum(np.arange(-6.0, 6.0), 0), atol=1e-6)
    assert not last._forward_hooks


def test_of_mambair_v2_it_is_the_last_attentive_module() -> None:
    torch.manual_seed(0)
    options = {"type": "MambaIRv2", "embed_dim": 12, "depths": [1], "num_heads": [2], "window_size": 4, "d_state": 4}
    network = build_network(options).eval()
    last = network.layers[0].residual_group.layers[0].assm
    last.register_forward_hook(lambda *_: torch.arange(12.0).view(1, 1, 1, 12))
    assert channel_activations(network, [torch.rand(3, 5, 6)]).tolist() == list(range(12))


def test_summaries() -> None:
    even = summarise(np.ones(8))
    assert (even.channels, even.active, even.effective) == (8, 1.0, pytest.approx(8))
    lonely = summarise(np.array([1.0, 0.0, 0.0, 0.05]))
    assert lonely.active == 0.25 and lonely.effective == pytest.approx(1.1, abs=0.01)
    assert summarise(np.zeros(4)).effective == 0


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match="no state-space module"):
        channel_activations(nn.Conv2d(3, 3, 1), [torch.rand(3, 4, 4)])
