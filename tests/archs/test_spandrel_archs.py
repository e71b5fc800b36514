"""Networks of spandrel's as baselines."""

import copy
import subprocess
import sys
import warnings

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from mambair.archs import build_network, load_network, load_weights, save_weights
from mambair.archs.spandrel_archs import COMMON_NAMES, EXTRA_NAMES
from mambair.errors import UserError
from mambair.weights.loading import architecture_of

spandrel = pytest.importorskip("spandrel")

SWINIR = {"type": "SwinIR", "upscale": 2, "img_size": 8, "window_size": 4, "embed_dim": 12, "depths": [2]}
SWINIR |= {"num_heads": [2], "mlp_ratio": 2, "upsampler": "pixelshuffledirect"}
HAT = {"type": "HAT", "upscale": 2, "img_size": 8, "window_size": 4, "embed_dim": 30, "depths": [2], "num_heads": [2]}
RCAN = {"type": "RCAN", "scale": 3, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16}
DRUNET = {"type": "DRUNet", "in_nc": 3, "out_nc": 3, "nc": [4, 8, 16, 16], "nb": 2}
NAFNET = {"type": "NAFNet", "width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
NETWORKS = [(SWINIR, 2), (HAT, 2), (RCAN, 3), (NAFNET, 1)]


@pytest.fixture(autouse=True)
def warnings_are_errors():
    """Those about spandrel's code are no concern of its users."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "'saved_variables'")  # in NAFNet's backward pass
        yield


@pytest.mark.parametrize(("options", "scale"), NETWORKS, ids=lambda value: value["type"] if value is dict else None)
def test_built_to_be_trained(options, scale):
    network = build_network(options)
    assert (network.scale, network.in_channels) == (scale, 3)
    x = torch.rand(2, 3, 9, 14)
    kept = x.clone()
    y = network(x)
    assert y.shape == (2, 3, 9 * scale, 14 * scale)
    assert torch.equal(x, kept)
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    again = build_network({"type": options["type"], **network.hyperparameters})
    again.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(x), again.eval()(x))


def test_any_size_although_the_network_wants_multiples():
    network = build_network(DRUNET)  # without a noise map: it was not built through a file
    assert network.size_multiple == 8
    assert network(torch.rand(1, 3, 3, 17)).shape == (1, 3, 3, 17)


def test_files_are_the_usual_ones(tmp_path):
    network = build_network(SWINIR).eval()
    save_weights(network, tmp_path / "swinir.pth")
    x = torch.rand(1, 3, 16, 16)
    theirs = spandrel.ModelLoader().load_from_file(tmp_path / "swinir.pth")
    assert theirs.architecture.id == "SwinIR"
    assert torch.allclose(theirs(x), network(x).clamp(0, 1), atol=1e-6)
    loaded = build_network({"type": "spandrel", "path": str(tmp_path / "swinir.pth")})
    assert (loaded.scale, loaded.in_channels, loaded.training) == (2, 3, False)
    assert torch.equal(loaded(x), network(x))
    other = build_network(SWINIR)
    assert load_weights(other, tmp_path / "swinir.pth") == []
    assert torch.equal(other.eval()(x), network(x))


@pytest.mark.parametrize(
    "options",
    [
        RCAN,
        DRUNET | {"in_nc": 4},
        {"type": "Restormer", "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 1, 1]},
        {"type": "SRFormer", "upscale": 2, "img_size": 16, "window_size": 8, "embed_dim": 12, "depths": [2]}
        | {"num_heads": [2], "mlp_ratio": 2, "upsampler": "pixelshuffledirect"},
    ],
    ids=lambda options: options["type"],
)
def test_baselines_of_the_papers_tables_load_from_their_weights(tmp_path, options):
    if options["type"] in EXTRA_NAMES:
        pytest.importorskip("spandrel_extra_arches")
    network = build_network(options).eval()
    torch.save(network.state_dict(), tmp_path / "baseline.pth")
    loaded = build_network({"type": "spandrel", "path": str(tmp_path / "baseline.pth")})
    x = torch.rand(1, 3, 19, 16)
    restored = loaded(x)
    assert restored.shape == (1, 3, 19 * network.scale, 16 * network.scale)
    if options["type"] != "DRUNet":  # whose noise map spandrel adds to the image of a file's network
        torch.testing.assert_close(restored, network(x))


def test_a_denoiser_that_takes_a_noise_map_takes_batches(tmp_path):
    state = build_network(DRUNET | {"in_nc": 4}).state_dict()
    torch.save(state, tmp_path / "drunet.pth")
    network = build_network({"type": "spandrel", "path": str(tmp_path / "drunet.pth")})
    assert network.in_channels == 3
    x = torch.rand(2, 3, 8, 8)
    both = network(x)
    assert torch.allclose(both[1:], network(x[1:]), atol=1e-6)


def test_messages_call_a_network_by_its_own_name():
    assert architecture_of(build_network(SWINIR)) == "SwinIR"
    assert architecture_of(build_network({"type": "MambaIR", "embed_dim": 12, "depths": [1]})) == "MambaIR"


def test_copies_and_averages_keep_the_keys():
    network = build_network(SWINIR)
    twin = copy.deepcopy(network)
    assert twin.state_dict().keys() == network.state_dict().keys()
    twin.load_state_dict(network.state_dict())
    average = AveragedModel(network)
    average.update_parameters(network)
    other = AveragedModel(build_network(SWINIR))
    other.load_state_dict(average.state_dict())
    key = "conv_first.weight"
    assert torch.equal(other.module.state_dict()[key], network.state_dict()[key])


def test_wrong_names_and_files(tmp_path):
    with pytest.raises(UserError, match="did you mean 'MambaIR'"):
        build_network({"type": "MambaIRR"})
    with pytest.raises(UserError, match="unknown key 'embed_dims' for SwinIR; did you mean 'embed_dim'"):
        build_network({"type": "SwinIR", "embed_dims": 60})
    torch.save({"params": {"unheard.of": torch.zeros(3)}}, tmp_path / "new.pth")
    with pytest.raises(UserError, match=r"new.pth: spandrel does not know"):
        build_network({"type": "spandrel", "path": str(tmp_path / "new.pth")})
    torch.save({"params": build_network(RCAN).state_dict()}, tmp_path / "rcan.pth")
    with pytest.raises(UserError, match="RCAN, not of MambaIR"):
        load_network(tmp_path / "rcan.pth")


def test_the_listed_names_are_spandrels():
    from spandrel import MAIN_REGISTRY

    modules = [sys.modules[type(support.architecture).__module__] for support in MAIN_REGISTRY]
    assert all(any(hasattr(module, name) for module in modules) for name in COMMON_NAMES)
    extra = pytest.importorskip("spandrel_extra_arches")
    assert set(EXTRA_NAMES) <= {support.architecture.id for support in extra.EXTRA_REGISTRY}


def test_without_spandrel_the_package_is_named(tmp_path):
    torch.save({"m_head.weight": torch.zeros(1)}, tmp_path / "drunet.pth")
    code = """
import sys
sys.modules["spandrel"] = None
from mambair.archs import build_network
from mambair.errors import UserError
file = {"type": "spandrel", "path": sys.argv[1]}
for options in ({"type": "SwinIR"}, {"type": "Restormer"}, file, {"type": "MambaR"}):
    try:
        build_network(options)
    except UserError as error:
        print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "drunet.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    swinir, restormer, file, typo = done.stdout.splitlines()
    assert swinir == "network_g: SwinIR needs spandrel; pip install spandrel"
    assert restormer.startswith("network_g: Restormer needs spandrel")
    assert file == "spandrel needs spandrel; pip install spandrel"
    assert "did you mean 'MambaIR'" in typo
