import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mambair.archs import MambaIR, MambaIRUNet, MambaIRv2, MambaIRv2Light, load_network
from mambair.errors import UserError

SMALL = {"embed_dim": 12, "depths": (1, 1), "d_state": 3, "mlp_ratio": 1.2, "img_range": 255.0}


def test_save_and_load_a_folder(tmp_path):
    pytest.importorskip("huggingface_hub")
    network = MambaIR(**SMALL)
    network.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["depths"] == [1, 1]
    loaded = MambaIR.from_pretrained(tmp_path)
    assert loaded.hyperparameters == network.hyperparameters
    assert not loaded.training
    x = torch.rand(1, 3, 5, 4)
    assert torch.equal(loaded(x), network.eval()(x))
    assert load_network(tmp_path / "model.safetensors").img_range == 255.0


V2 = {"embed_dim": 12, "depths": (2,), "num_heads": (3,), "d_state": 2, "window_size": 4, "inner_rank": 3}


@pytest.mark.parametrize("kind", [MambaIRv2, MambaIRv2Light])
def test_version_2_by_the_same_calls(kind, tmp_path):
    pytest.importorskip("huggingface_hub")
    torch.manual_seed(0)
    network = kind(**V2, num_tokens=5, img_range=255.0, routing="gumbel")
    network.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert loaded.hyperparameters == network.hyperparameters and not loaded.training
    x = torch.rand(1, 3, 5, 4)
    results = []
    for each in (network.eval(), loaded, load_network(tmp_path / "model.safetensors")):
        torch.manual_seed(1)
        results.append(each(x))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_push_to_hub_sends_what_from_pretrained_reads(tmp_path, monkeypatch):
    hub_mixin = pytest.importorskip("huggingface_hub").hub_mixin
    calls = []

    class FakeApi:
        def __init__(self, token=None):
            assert token == "secret"

        def create_repo(self, repo_id, private=None, exist_ok=False):
            calls.append((repo_id, private, exist_ok))
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id, folder_path, commit_message, **rest):
            shutil.copytree(folder_path, tmp_path / "uploaded")
            return f"{repo_id}: {commit_message}"

    monkeypatch.setattr(hub_mixin, "HfApi", FakeApi)
    network = MambaIR(**SMALL)
    sent = network.push_to_hub("me/light", private=True, token="secret", commit_message="first")
    assert sent == "me/light: first" and calls == [("me/light", True, True)]
    assert {path.name for path in (tmp_path / "uploaded").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    card = (tmp_path / "uploaded" / "README.md").read_text()
    assert "library_name: mambair" in card and "pipeline_tag: image-to-image" in card
    x = torch.rand(1, 3, 5, 4)
    assert torch.equal(MambaIR.from_pretrained(tmp_path / "uploaded")(x), network.eval()(x))


def test_files_can_be_read_by_everyone_the_umask_allows(tmp_path):
    MambaIR(**SMALL)._save_pretrained(tmp_path)
    (tmp_path / "plain").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_weights_that_do_not_fit_are_refused(tmp_path):
    pytest.importorskip("huggingface_hub")
    MambaIRUNet(dim=4, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"dim": 8, "num_blocks": [1, 1, 1, 1]}))
    with pytest.raises(UserError, match="MambaIRUNet"):
        MambaIRUNet.from_pretrained(tmp_path)


def test_without_huggingface_hub_the_package_is_named():
    code = """
import sys
sys.modules["huggingface_hub"] = None
from mambair.archs import MambaIR
from mambair.errors import UserError
MambaIR(embed_dim=12, depths=(1,))
try:
    MambaIR.from_pretrained("x")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "MambaIR.from_pretrained needs huggingface_hub; pip install 'mambair[hub]'"
