"""What other people's networks and training loops may rely on: the contract of VSSM, RSSB, RSSG, SS2D and ss2d_scan."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mambair.archs import EDSR, RSSB, RSSG, SS2D, VSSM, MambaIR, MambaIRUNet, MambaIRv2, RestorationNetwork
from mambair.errors import UserError
from mambair.ops import selective_scan, ss2d_scan

PROJECT = Path(__file__).resolve().parents[2]
CHANNELS = 12

MODULES: dict[str, Callable[[], nn.Module]] = {
    "VSSM": lambda: VSSM(CHANNELS, d_state=3, mlp_ratio=1.5),
    "RSSB": lambda: RSSB(CHANNELS, d_state=3),
    "RSSG": lambda: RSSG([RSSB(CHANNELS, d_state=2, drop_path=0.0) for _ in range(2)], CHANNELS, "1conv", False),
    "SS2D": lambda: SS2D(CHANNELS, d_state=5, expand=1.3, d_conv=5, dt_rank=3, directions=2, bias=True),
}


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return MODULES[request.param]()


def features(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(module: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """Of the input and of every parameter."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    call(x).square().mean().backward()
    return [x.grad, *(parameter.grad.clone() for parameter in module.parameters())]


def close(first: list[Tensor], second: list[Tensor], tolerance: float = 1e-5) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=tolerance) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 9), (1, 16, 3)])
def test_shapes(module: nn.Module, shape: tuple[int, int, int]) -> None:
    x = features(*shape, CHANNELS)
    assert module(x).shape == x.shape
    assert module(x).dtype == torch.float32


def test_layouts(module: nn.Module) -> None:
    """A channels-first tensor seen as channels-last, and a part of a wider one, give what a copy gives."""
    x = features(2, CHANNELS, 6, 7).permute(0, 2, 3, 1)
    wide = features(2, 6, 7, CHANNELS + 5)[..., 2:-3]
    for view in (x, wide):
        assert torch.allclose(module(view), module(view.contiguous()), atol=1e-6)


def test_autocast(module: nn.Module) -> None:
    x = features(1, 6, 7, CHANNELS)
    with torch.autocast("cpu", torch.bfloat16):
        half = module(x)
    assert half.isfinite().all()
    assert torch.allclose(half.float(), module(x), atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(grad.dtype == torch.float32 for grad in gradients(module, module, x))


def test_compiled(module: nn.Module) -> None:
    x = features(1, 6, 7, CHANNELS)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), module(x), atol=1e-6)
    assert close(gradients(module, compiled, x), gradients(module, module, x))


def test_gradient_checkpointing(module: nn.Module) -> None:
    x = features(1, 6, 7, CHANNELS)
    recomputed = gradients(module, lambda each: checkpoint(module, each, use_reentrant=False), x)
    assert close(recomputed, gradients(module, module, x))


def test_group_checkpoints_itself() -> None:
    blocks = [RSSB(CHANNELS, d_state=2) for _ in range(2)]
    x = features(1, 5, 6, CHANNELS)
    plain, recomputing = (RSSG(blocks, CHANNELS, "1conv", use) for use in (False, True))
    recomputing.load_state_dict(plain.state_dict())
    assert close(gradients(recomputing, recomputing, x), gradients(plain, plain, x))


def test_export(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "portable")  # standard operators, which every runtime has
    module.eval()
    x = features(1, 6, 7, CHANNELS)
    with torch.no_grad():
        exported = torch.export.export(module, (x,))
        assert torch.allclose(exported.module()(x), module(x), atol=1e-6)
    assert not any("mambair" in str(node.target) for node in exported.graph.nodes)


DDP = """
import sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.archs.test_as_library import MODULES, features, CHANNELS
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
for name, make in MODULES.items():
    torch.manual_seed(0)
    module = make()
    both = features(2, 5, 6, CHANNELS)
    module(both).square().mean().backward()
    expected = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    parallel = DistributedDataParallel(module)
    parallel(both[rank : rank + 1]).square().mean().backward()
    for parameter, grad in zip(module.parameters(), expected):
        assert torch.allclose(parameter.grad, grad, rtol=1e-4, atol=1e-6), name
dist.destroy_process_group()
"""


def test_on_two_processes(tmp_path: Path) -> None:
    """DistributedDataParallel, each process with its half of a batch, has the gradients of the whole batch."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", DDP]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1].decode() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], errors


def test_ss2d_is_vssm_with_the_same_choices() -> None:
    vssm = VSSM(CHANNELS, d_state=4, mlp_ratio=2.0)
    ss2d = SS2D(CHANNELS, d_state=4, expand=2.0)
    assert {key: value.shape for key, value in ss2d.state_dict().items()} == {
        key: value.shape for key, value in vssm.state_dict().items()
    }
    ss2d.load_state_dict(vssm.state_dict())
    x = features(2, 5, 7, CHANNELS)
    assert torch.allclose(ss2d(x), vssm(x), atol=1e-6)


@pytest.mark.parametrize("directions", [1, 2, 4])
def test_ss2d_by_its_definition(directions: int) -> None:
    """In float64, from one-dimensional selective scans over reordered pixels."""
    torch.manual_seed(0)
    module = SS2D(7, d_state=3, expand=1.5, d_conv=5, dt_rank=2, directions=directions, bias=True).double()
    x = features(2, 4, 5, 7).double()
    inner, states, rank = 10, 3, 2
    left, gate = F.linear(x, module.in_proj.weight, module.in_proj.bias).split(inner, dim=-1)
    conv = module.conv2d
    left = F.silu(F.conv2d(left.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=2, groups=inner))  # (B, E, H, W)
    rows, columns = left.flatten(2), left.transpose(2, 3).flatten(2)
    orders = {1: [rows], 2: [rows, rows.flip(2)], 4: [rows, columns, rows.flip(2), columns.flip(2)]}[directions]
    total = torch.zeros_like(left)
    for k, sequence in enumerate(orders):
        projected = torch.einsum("rd,bdl->brl", module.x_proj_weight[k], sequence)
        dt, b, c = projected.split([rank, states, states], dim=1)
        delta = torch.einsum("dr,brl->bdl", module.dt_projs_weight[k], dt)
        part = slice(k * inner, (k + 1) * inner)
        y = selective_scan(
            sequence,
            delta,
            -module.A_logs[part].exp(),
            b,
            c,
            module.Ds[part],
            delta_bias=module.dt_projs_bias[k],
            delta_softplus=True,
        )
        y = y.flip(2) if k >= directions / 2 and directions > 1 else y
        is_column = directions == 4 and k % 2 == 1
        total += y.reshape(2, inner, 5, 4).transpose(2, 3) if is_column else y.reshape(2, inner, 4, 5)
    normed = F.layer_norm(total.permute(0, 2, 3, 1), (inner,), module.out_norm.weight, module.out_norm.bias)
    expected = F.linear(normed * F.silu(gate), module.out_proj.weight, module.out_proj.bias)
    assert torch.allclose(module(x), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [({"directions": 3}, "directions 3"), ({"d_conv": 4}, "d_conv 4 must be odd"), ({"d_state": 0}, "at least 1")],
)
def test_ss2d_refuses(keywords: dict[str, int], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        SS2D(8, **keywords)


def test_ss2d_learns() -> None:
    torch.manual_seed(0)
    module = SS2D(4, d_state=2)
    x, target = features(2, 6, 6, 4), features(2, 6, 6, 4, seed=2).cumsum(dim=1) * 0.1
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(module(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_scan_takes_what_its_documentation_says() -> None:
    """Any strides, any floating type, gradients for every tensor; float64 computes in float64."""
    directions, inner, states, rank = 4, 6, 3, 2
    generator = torch.Generator().manual_seed(0)
    shapes = [(directions, rank + 2 * states, inner), (directions, inner, rank), (directions, inner)]
    shapes += [(directions * inner, states), (directions * inner,)]
    weights = [torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.3 for shape in shapes]
    x = torch.randn(2, inner, 4, 5, generator=generator, dtype=torch.float64).permute(0, 2, 3, 1)
    arguments = [each.requires_grad_() for each in (x, *weights)]
    assert torch.autograd.gradcheck(ss2d_scan, arguments, fast_mode=True)
    single = ss2d_scan(*(each.float() for each in arguments))
    assert torch.allclose(single.double(), ss2d_scan(*arguments), atol=1e-4)


NETWORKS: dict[str, Callable[[], RestorationNetwork]] = {
    "MambaIR": lambda: MambaIR(embed_dim=8, depths=(1,), d_state=2, upscale=2, upsampler="pixelshuffledirect"),
    "MambaIRUNet": lambda: MambaIRUNet(dim=4, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, d_state=2),
    "MambaIRv2": lambda: MambaIRv2(
        embed_dim=8, depths=(1,), num_heads=(2,), window_size=4, d_state=2, inner_rank=4, num_tokens=4
    ),
    "EDSR": lambda: EDSR(upscale=2, num_feat=8, num_block=1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_features_before_the_head(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    image = torch.rand(1, 3, 9, 11)
    found = network.forward_features(image)
    assert found.shape == (1, 8, 9, 11)
    # The head is fed with them: its first layer gets the same numbers in forward.
    head = {"MambaIR": "upsample", "MambaIRUNet": "output", "MambaIRv2": "conv_last", "EDSR": "upsample"}[name]
    seen: list[Tensor] = []
    network.get_submodule(head).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(image)
    assert torch.equal(seen[0][:, :, :9, :11], found)
    with pytest.raises(UserError, match="takes images of 3"):
        network.forward_features(torch.rand(1, 1, 9, 11))
