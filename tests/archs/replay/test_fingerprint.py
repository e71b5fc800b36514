"""What a graph rests on: a fingerprint fits until something of it changes."""

import gc
import weakref

import pytest
import torch
from torch import nn

from mambair.archs.replay.fingerprint import Fingerprint
from tests.archs.replay.tiny import make


def block_of(network: nn.Module) -> nn.Module:
    return network.layers[0].residual_group.blocks[0]


def new_place(network: nn.Module) -> None:
    network.conv_first.weight.data = network.conv_first.weight.data.clone()


def new_type(network: nn.Module) -> None:
    network.layers.half()


def new_module(network: nn.Module) -> None:
    block_of(network).self_attention.out_proj = nn.Linear(12, 12, bias=False)


def no_module(network: nn.Module) -> None:
    network.layers[0].residual_group.blocks = network.layers[0].residual_group.blocks[:1]


def new_parameter(network: nn.Module) -> None:
    block_of(network).self_attention.out_proj.bias = nn.Parameter(torch.zeros(12))


def new_hook(network: nn.Module) -> None:
    network.conv_after_body.register_forward_hook(lambda *_: None)


def own_hook(network: nn.Module) -> None:
    network.register_forward_pre_hook(lambda *_: None)


def backward_hook(network: nn.Module) -> None:
    network.conv_first.register_full_backward_hook(lambda *_: None)


def dropout(network: nn.Module) -> None:
    network.pos_drop.eval()


def new_setting(network: nn.Module) -> None:
    network.img_range = 255.0


def setting_of_a_part(network: nn.Module) -> None:
    block_of(network).ln_1.eps = 1e-3


def new_forward(network: nn.Module) -> None:
    network.conv_first.forward = lambda x: x


CHANGES = [
    new_place, new_type, new_module, no_module, new_parameter, new_hook, own_hook, backward_hook, dropout, new_setting,
    setting_of_a_part, new_forward,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_it_fits_until_something_changes(change) -> None:
    network = make().train()
    fingerprint = Fingerprint(network)
    assert fingerprint.is_plain
    assert fingerprint.is_ours
    with torch.no_grad():
        network.conv_first.weight.mul_(2)  # graphs read values where they lie
    assert fingerprint.fits(network)
    change(network)
    assert not fingerprint.fits(network)


def test_a_class_with_another_forward_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make()
    fingerprint = Fingerprint(network)
    monkeypatch.setattr(type(block_of(network)), "forward", lambda self, x, keep=None: x)
    assert not fingerprint.fits(network)


def test_a_hook_for_all_modules_is_noticed() -> None:
    network = make()
    fingerprint = Fingerprint(network)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not fingerprint.fits(network)
        assert not Fingerprint(network).is_plain
    finally:
        handle.remove()
    assert fingerprint.fits(network)


def test_hooks_that_were_there_and_are_gone() -> None:
    network = make()
    handle = network.norm.register_forward_hook(lambda *_: None)
    fingerprint = Fingerprint(network)
    assert not fingerprint.is_plain
    assert fingerprint.fits(network)
    handle.remove()
    assert not fingerprint.fits(network)


def test_compiled_blocks_and_replaced_passes_are_not_plain() -> None:
    network = make()
    block_of(network).compile(backend="eager")
    assert not Fingerprint(network).is_plain
    network = make()
    network.forward = lambda x: x
    assert not Fingerprint(network).is_plain


class Somebodys(nn.Linear):
    """A layer as those that tune networks put in."""


def test_parts_of_somebody_else_are_told_apart() -> None:
    network = make()
    block_of(network).self_attention.out_proj = Somebodys(12, 12, bias=False)
    assert not Fingerprint(network).is_ours


def test_recomputed_blocks_are_known() -> None:
    network = make()
    assert not Fingerprint(network).recomputes
    network.layers[0].residual_group.use_checkpoint = True
    assert Fingerprint(network).recomputes


def test_parameters_are_those_that_want_gradients_each_once() -> None:
    network = make()
    network.conv_first.requires_grad_(False)
    network.norm.weight = network.layers[0].residual_group.blocks[0].ln_1.weight
    found = Fingerprint(network).parameters()
    assert {id(p) for p in found} == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(found) == len({id(p) for p in found})


def test_tensors_of_other_devices_and_kinds_are_refused() -> None:
    network = make()
    fingerprint = Fingerprint(network)
    assert fingerprint.is_on(torch.device("cpu"))
    assert not fingerprint.is_on(torch.device("cuda", 0))
    network.conv_first._parameters["weight"] = network.conv_first.weight * 2
    assert not fingerprint.is_on(torch.device("cpu"))


def test_it_does_not_keep_the_network_alive() -> None:
    network = make()
    network.kept = Fingerprint(network)
    gone = weakref.ref(network)
    gc.disable()
    try:
        del network
        assert gone() is None
    finally:
        gc.enable()
