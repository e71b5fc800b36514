import json
import subprocess
import sys

import pytest
import torch

from mambair.archs import MambaIR, MambaIRUNet, load_network
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


def test_weights_that_do_not_fit_are_refused(tmp_path):
    pytest.importorskip("huggingface_hub")
    MambaIRUNet(dim=4, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"dim": 8, "num_blocks": [1, 1, 1, 1]}))
    with pytest.raises(UserError, match="MambaIRUNet"):
        MambaIRUNet.from_pretrained(tmp_path)


def test_without_huggingface_hub_the_package_is_named():
    code = """
import sys
import timm.layers  # needs huggingface_hub itself
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
