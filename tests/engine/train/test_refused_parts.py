"""Parts that do not fit are refused before a run writes anything, in one line with the remedy."""

from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny_run import train

pytestmark = pytest.mark.usefixtures("plugins_forgotten")


def refused(root: Path, capsys: pytest.CaptureFixture, text: str, **changes: Any) -> str:
    """What is said of a run that must not begin."""
    plugin = root / "their_parts.py"
    plugin.write_text(text, encoding="utf-8")
    assert train(root, **{"plugins": [str(plugin)], **changes}) == 2
    assert not (root / "experiments").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    return error


NETWORK = """\
import torch
from torch import nn
from mambair.registry import ARCHS

@ARCHS.register()
class Refused(nn.Module):
    def __init__(self, upscale=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
    def forward(self, x):
        {body}
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return nn.functional.pixel_shuffle(self.conv(x)[:, :3], 1)", "with scale 2 it must be (1, C, 74, 90)"),
        ("return self.conv(x).reshape(-1, 3, 64, 64)", "fails at"),
        ("return {'image': x}", "makes dict of an image (1, 3, 37, 45)"),
        ("return undefined", "NameError: name 'undefined' is not defined; images have any size"),
    ],
)
def test_networks_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture, body: str, expected: str) -> None:
    error = refused(tmp_path, capsys, NETWORK.format(body=body), network_g={"type": "Refused", "upscale": 2})
    assert expected in error and "network_g: Refused" in error


def test_a_network_of_another_scale_than_the_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    body = "return nn.functional.pixel_shuffle(self.conv(x), 2)"
    plugin = NETWORK.format(body=body).replace("upscale=2", "width=12")
    error = refused(tmp_path, capsys, plugin, network_g={"type": "Refused"}, scale=4)
    assert "network_g: Refused enlarges 2 times but scale is 4; make them equal" in error


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ARCHS.register('Wrong')(lambda upscale=2: torch.zeros(3))", "gave a Tensor; a network is a torch.nn.Module"),
        ("ARCHS.register('Wrong')(lambda upscale=2: nn.Identity())", "has no parameters to train"),
        ("ARCHS.register('Wrong')(lambda upscal=2: nn.Identity())", "unknown key 'upscale' for Wrong; did you mean"),
    ],
)
def test_what_is_no_network(tmp_path: Path, capsys: pytest.CaptureFixture, line: str, expected: str) -> None:
    text = f"import torch\nfrom torch import nn\nfrom mambair.registry import ARCHS\n{line}\n"
    assert expected in refused(tmp_path, capsys, text, network_g={"type": "Wrong", "upscale": 2})


LOSS = """\
import torch
from mambair.registry import LOSSES

@LOSSES.register()
class Refused:
    {call}
"""


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("def __call__(self, p, t): return (p - t).abs()", "gave (2, 3, 16, 16); a loss gives a tensor with one"),
        ("def __call__(self, p, t): return (p - t).abs().mean(), None", "gave tuple; a loss gives a tensor"),
        ("def __call__(self, p, t): return (p - t).abs().mean().detach()", "has no gradient"),
        ("def __call__(self, p, t): return (p - t).nothing()", "fails at"),
        ("def __call__(self, p): return p.mean()", "TypeError"),
        ("weight = 1", "cannot be called as loss(prediction, target)"),
    ],
)
@pytest.mark.parametrize("key", ["pixel_opt", "losses"])
def test_losses_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture, call: str, expected: str, key: str
) -> None:
    block = {"type": "Refused"}
    changes = {"train__pixel_opt": block} if key == "pixel_opt" else {"train__losses": [block]}
    assert expected in refused(tmp_path, capsys, LOSS.format(call=call), **changes)


DATASET = """\
import torch
from mambair.registry import DATASETS

@DATASETS.register()
class Refused:
    def __init__(self, dataroot_gt, {parameters}):
        pass
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return {sample}
"""
PAIR = "{'lq': torch.rand(3, 8, 8), 'gt': torch.rand(3, 16, 16)}"


@pytest.mark.parametrize(
    ("parameters", "sample", "keys", "expected"),
    [
        ("blur=1", "{'lq': torch.rand(3, 8, 8)}", {}, "gives no 'gt', the ground truth to train on"),
        ("blur=1", "{'lq': torch.rand(3, 8, 8), 'gt': torch.rand(3, 8, 8)}", {}, "'gt' must be 2 times as large"),
        ("blur=1", "(torch.rand(3, 8, 8),) * 2", {}, "a sample is a dict with the tensors 'lq' (C, h, w) and 'gt'"),
        ("blur=1", "{'lq': torch.rand(8, 8, 3).double(), 'gt': 1}", {}, "it must be float32 of shape (C, H, W)"),
        ("blur=1", "1 / 0", {}, "ZeroDivisionError"),
        ("blur=1", PAIR, {"blurr": 2}, "unknown key for Refused; did you mean 'blur'"),
        ("blur: int = 1", PAIR, {"blur": "much"}, "key 'blur' is 'much'"),
        ("blur", PAIR, {}, "key 'blur' is missing; Refused needs it"),
        ("blur=1", PAIR, {"use_rot": True}, "Refused has no such keyword"),
        ("blur=1", PAIR, {"iters": [1, 5], "gt_sizes": [16, 16], "mini_batch_sizes": [1, 1]}, "patches that grow need"),
    ],
)
def test_data_sets_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture, parameters: str, sample: str, keys: dict[str, Any], expected: str
) -> None:
    section = {"type": "Refused", "dataroot_gt": "x", "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, **keys}
    text = DATASET.format(parameters=parameters, sample=sample)
    assert expected in refused(tmp_path, capsys, text, datasets__train=section)


METRIC = """\
from mambair.registry import METRICS

@METRICS.register({direction})
def refused(image, reference):
    return {value}
"""


@pytest.mark.parametrize(
    ("direction", "value", "expected"),
    [
        ("", "1.0", "it is not known which way refused is better; write better: higher or better: lower"),
        ("higher_is_better=True", "image.nothing", "AttributeError"),
        ("higher_is_better=True", "'good'", "ValueError"),
    ],
)
def test_metrics_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture, direction: str, value: str, expected: str
) -> None:
    text = METRIC.format(direction=direction, value=value)
    assert expected in refused(tmp_path, capsys, text, val__metrics={"mine": {"type": "refused"}})


MODEL = """\
from mambair.registry import MODELS
from mambair.models.restoration_model import RestorationModel

@MODELS.register()
class OwnModel(RestorationModel):
    def training_step(self, batch):
        losses = super().training_step(batch)
        return losses | {"l_own": 0.5 * sum(losses.values())}

@MODELS.register()
class Shapeless:
    pass

@MODELS.register()
class Idle(RestorationModel):
    @classmethod
    def from_options(cls, options, device):
        model = super().from_options(options, device)
        model.optimizers.clear()
        return model
"""


def test_models(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "has no classmethod from_options" in refused(tmp_path, capsys, MODEL, model_type="Shapeless")
    assert "has no optimizers for its networks" in refused(tmp_path, capsys, MODEL, model_type="Idle")
    plugin = str(tmp_path / "their_parts.py")
    assert train(tmp_path, plugins=[plugin], model_type="OwnModel", train__total_iter=2) == 0
    assert "l_own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train__losses": [{"type": "LDLLoss"}], "train__ema_decay": 0}, "set train.ema_decay, as 0.999, or use"),
        ({"train__losses": [{"type": "MSSSIMLoss"}]}, "5 scales need patches of 176 pixels, these have 16"),
        (
            {"train__losses": [{"type": "L1Loss", "wait": 1}]},
            "'wait' for L1Loss; it takes loss_weight, reduction",
        ),
        ({"train__losses": [{"type": "L1Loss", "on": "yuv"}]}, "expected 'rgb' or 'y', got 'yuv'"),
        ({"train__losses": [{"type": "GANLoss"}]}, "it belongs under train.gan_opt"),
        (
            {"train__pixel_opt": None, "train__losses": [{"type": "L1Loss", "from_iter": 3}]},
            "no loss counts from the beginning",
        ),
        ({"train__losses": [{"type": "L1Loss", "name": "l_pix"}]}, "two losses are called 'l_pix'"),
        ({"val__best": "ssin"}, "'ssin' is not among val.metrics; did you mean 'ssim'"),
        (
            {"train__augmentations": [{"type": "CutMix"}], "train__mixing_augs": {"mixup": True}},
            "is the older way to write MixUp",
        ),
    ],
)
def test_option_files_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict[str, Any], expected: str
) -> None:
    assert train(tmp_path, **changes) == 2
    assert expected in capsys.readouterr().err
