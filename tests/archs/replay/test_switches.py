"""Who is replayed: what networks, their classes and the environment say, and what cannot be."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import Tensor, nn

import mambair.archs.replay as replay
from mambair.archs import EDSR, MambaIR, MambaIRUNet, MambaIRv2, MambaIRv2Light, RestorationNetwork
from mambair.archs.replay import KEPT_AS, Replays, guards
from tests.archs.replay.tiny import make


def test_networks_of_this_project_say_so_and_derived_ones_do_not() -> None:
    for kind in (MambaIR, MambaIRUNet, MambaIRv2, MambaIRv2Light):
        assert kind.replays_graphs and kind.replays_steps

    class Derived(MambaIR):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand(1)

    class Vouched(MambaIR):
        replays_graphs = True

    assert not Derived.replays_graphs
    assert not Derived.replays_steps
    assert Vouched.replays_graphs
    assert not Vouched.replays_steps
    assert not EDSR.replays_graphs
    assert not RestorationNetwork.replays_graphs


@pytest.mark.parametrize("with_gradients", [False, True])
def test_the_network_is_heard_before_the_environment_before_the_class(
    with_gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make()
    del network.replays_graphs, network.replays_steps
    monkeypatch.delenv(guards.SWITCH, raising=False)
    assert guards.switched_on(network, with_gradients)
    monkeypatch.setenv(guards.SWITCH, "0")
    assert not guards.switched_on(network, with_gradients)
    network.replays_graphs = network.replays_steps = True
    assert guards.switched_on(network, with_gradients)
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    assert not guards.switched_on(network, with_gradients)
    monkeypatch.delenv("CUDA_LAUNCH_BLOCKING")
    monkeypatch.setenv(guards.SWITCH, "1")
    network.replays_graphs = network.replays_steps = False
    assert not guards.switched_on(network, with_gradients)


def test_gradients_are_wanted_by_the_input_or_a_parameter() -> None:
    network, x = make(), torch.rand(1, 3, 4, 4)
    assert guards.needs_gradients(network, x)
    with torch.no_grad():
        assert not guards.needs_gradients(network, x)
    network.requires_grad_(False)
    assert not guards.needs_gradients(network, x)
    assert guards.needs_gradients(network, x.requires_grad_())


class OnGpu(nn.Parameter):
    """Says that it lies on a GPU."""

    is_cuda = True


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """One that passes for an ordinary tensor of a GPU."""
    monkeypatch.setattr("mambair.ops.direct._PLAIN", (OnGpu,))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return OnGpu(torch.rand(1, 3, 4, 4))


def test_only_ordinary_images_on_a_gpu_that_nobody_watches(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guards.may_replay(image)
    with torch.device("cpu"):  # a default device watches nothing
        assert guards.may_replay(image)
    with replay.paused():
        assert not guards.may_replay(image)
        with replay.paused():
            pass
        assert not guards.may_replay(image)
    assert guards.may_replay(image)
    with torch.autograd.set_detect_anomaly(True):
        assert not guards.may_replay(image)
    with torch.autograd.forward_ad.dual_level():
        assert not guards.may_replay(image)
    with torch.overrides.TorchFunctionMode():
        assert not guards.may_replay(image)
    with torch.utils._python_dispatch.TorchDispatchMode():
        assert not guards.may_replay(image)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not guards.may_replay(image)


def test_what_is_no_image_on_a_gpu() -> None:
    assert not guards.may_replay(torch.rand(1, 3, 4, 4))
    assert not guards.may_replay("image")
    assert not guards.may_replay(torch.fx.Proxy(torch.fx.Graph().placeholder("x")))


def test_newer_settings_of_precision_are_no_error() -> None:
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this PyTorch has the older ones only")
    x, before = torch.rand(1, 3, 4, 4), torch.backends.cuda.matmul.fp32_precision
    usual = guards.circumstances(x)
    try:
        torch.backends.cuda.matmul.fp32_precision = "ieee" if before == "tf32" else "tf32"
        assert guards.circumstances(x) != usual
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def with_graphs() -> RestorationNetwork:
    network = make()
    network.__dict__[KEPT_AS] = Replays(network)
    return network


def test_copies_and_pickles_have_no_graphs() -> None:
    network = with_graphs()
    for other in (copy.copy(network), copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert KEPT_AS not in vars(other)
    network.float()
    assert KEPT_AS not in vars(network)  # not on a GPU after it was moved


def test_graphs_go_with_their_network() -> None:
    network = with_graphs()
    kept = weakref.ref(vars(network)[KEPT_AS])
    gc.disable()
    try:
        del network
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("with_gradients", [False, True])
def test_switching_off_drops_one_kind_of_graphs(with_gradients: bool, image: Tensor) -> None:
    network = with_graphs()
    before = vars(network)[KEPT_AS].passes, vars(network)[KEPT_AS].steps
    setattr(network, "replays_steps" if with_gradients else "replays_graphs", False)
    with torch.set_grad_enabled(with_gradients):
        assert replay.replayed(network, image, network.forward) is None
    after = vars(network)[KEPT_AS].passes, vars(network)[KEPT_AS].steps
    assert [a is b for a, b in zip(after, before, strict=True)] == [with_gradients, not with_gradients]


def test_attributes_of_another_network_are_not_its_graphs(image: Tensor) -> None:
    network, other = with_graphs(), make()
    other.__dict__[KEPT_AS] = vars(network)[KEPT_AS]
    other.replays_graphs = True
    other.train()
    with torch.no_grad():
        assert replay.replayed(other, image, other.forward) is None
    assert vars(other)[KEPT_AS] is not vars(network)[KEPT_AS]
    assert vars(other)[KEPT_AS].owner() is other


def test_compiled_networks_make_none() -> None:
    network = make()
    network.compile(backend="eager")
    assert not network.replays_graphs
    assert not network.replays_steps
