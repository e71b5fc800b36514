"""Both stages of real-world super-resolution on tiny networks: pairs, phases, losses, state."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mambair.archs import UNetDiscriminatorSN
from mambair.data.degradations.blur_kernels import KernelDistribution
from mambair.data.degradations.filters import sharpen
from mambair.data.degradations.pair_maker import PairMaker
from mambair.data.degradations.second_order import FIRST_ROUND, SECOND_ROUND
from mambair.losses import L1Loss
from mambair.losses.adversarial import GANLoss
from mambair.models.gan_model import AdversarialModel, Alternation, SharpenedTargets
from mambair.models.real_sr_model import RealSRModel, build_pair_maker
from mambair.options import parse_train_options

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


class Upscaler(nn.Module):
    """The smallest network with the attributes of a restoration network."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.in_channels, self.size_multiple = 4, 3, 1
        self.layers = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class MeanDifference(nn.Module):
    """Stands in for the perceptual loss."""

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (prediction.mean() - target.mean()).abs()


def loader_batch(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    kernels = {
        key: torch.from_numpy(np.stack([KernelDistribution().draw(rng) for _ in range(2)]))
        for key in ("kernel1", "kernel2", "sinc_kernel")
    }
    smooth = np.kron(rng.random((2, 3, 12, 12)), np.ones((8, 8)))  # edges, so that sharpening changes something
    return {"gt": torch.from_numpy(smooth).float(), "gt_path": ["a", "b"], **kernels}


def make_gan(**arguments) -> AdversarialModel:
    torch.manual_seed(0)
    return AdversarialModel(
        Upscaler(),
        UNetDiscriminatorSN(num_feat=4),
        device=CPU,
        gan_loss=GANLoss("vanilla", loss_weight=0.1),
        losses={"l_pix": L1Loss(), "l_percep": MeanDifference()},
        pair_maker=PairMaker(4, 32, queue_size=4),
        **arguments,
    )


def test_stage_one_trains_on_degraded_pairs_with_sharpened_targets():
    torch.manual_seed(0)
    model = RealSRModel(Upscaler(), device=CPU, losses={"l_pix": L1Loss()}, pair_maker=PairMaker(4, 32, 4))
    batch = model.prepare(loader_batch(), np.random.default_rng(0))
    assert batch["lq"].shape == (2, 3, 8, 8) and batch["gt"].shape == (2, 3, 32, 32)
    plain = PairMaker(4, 32, 4).make(loader_batch(), np.random.default_rng(0))[0]
    torch.testing.assert_close(batch["gt"], sharpen(plain))
    assert not torch.allclose(batch["gt"], plain)
    losses = model.training_step(batch)
    assert set(losses) == {"l_pix"} and losses["l_pix"].isfinite()
    losses["l_pix"].backward()


def test_given_pairs_are_taken_as_they_are():
    model = RealSRModel(Upscaler(), device=CPU, losses={"l_pix": L1Loss()}, sharpen_target=False)
    pair = {"lq": torch.rand(1, 3, 8, 8), "gt": torch.rand(1, 3, 32, 32)}
    assert torch.equal(model.prepare(dict(pair), np.random.default_rng(0))["gt"], pair["gt"])


@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16])
def test_both_phases_have_finite_losses_and_touch_only_their_network(amp_dtype):
    model = make_gan(amp_dtype=amp_dtype)
    batch = model.prepare(loader_batch(), np.random.default_rng(0))
    generator, discriminator = model.phases(0)
    with model.freezing(generator.frozen):
        losses = generator.losses(batch)
        assert set(losses) == {"l_pix", "l_percep", "l_g_gan"}
        sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.networks["net_g"].parameters())
    assert all(p.grad is None for p in model.networks["net_d"].parameters())
    before = [p.grad.clone() for p in model.networks["net_g"].parameters()]
    logged = discriminator.losses(batch)
    assert set(logged) == {"l_d", "out_d_real", "out_d_fake"}
    assert all(value.isfinite() for value in logged.values())
    assert logged["l_d"].requires_grad and not logged["out_d_real"].requires_grad
    logged["l_d"].backward()
    assert all(p.grad is not None for p in model.networks["net_d"].parameters())
    after = [p.grad for p in model.networks["net_g"].parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_few_steps_teach_the_discriminator():
    model = make_gan()
    batch = model.prepare(loader_batch(), np.random.default_rng(0))
    optimizer = torch.optim.Adam(model.networks["net_d"].parameters(), 1e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(model.discriminator_step(batch)["l_d"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_targets_are_sharpened_for_the_losses_that_ask_for_it():
    batches = []
    for flags in (SharpenedTargets(), SharpenedTargets(False, False, False)):
        model = make_gan(sharpened=flags)
        batch = model.prepare(loader_batch(), np.random.default_rng(0))
        batches.append((batch, model.generator_step(batch)))
    (sharp, sharp_losses), (plain, plain_losses) = batches
    assert torch.equal(sharp["gt"], plain["gt"])
    expected = (sharp["restored"] - sharpen(sharp["gt"])).abs().mean()
    torch.testing.assert_close(sharp_losses["l_pix"].detach(), expected)
    expected = (plain["restored"] - plain["gt"]).abs().mean()
    torch.testing.assert_close(plain_losses["l_pix"].detach(), expected)


def test_alternation_is_that_of_the_option_keys():
    steps = [Alternation(every=2, after=4).includes_generator(iteration) for iteration in range(8)]
    assert steps == [False, False, False, False, False, True, False, True]
    model = make_gan(alternation=Alternation(after=1))
    assert [phase.network for phase in model.phases(0)] == ["net_d"]
    assert [phase.network for phase in model.phases(1)] == ["net_g", "net_d"]
    batch = model.prepare(loader_batch(), np.random.default_rng(0))
    assert model.discriminator_step(batch)["l_d"].isfinite()  # without a generator step before it


def test_the_queue_is_part_of_the_state():
    model, resumed = make_gan(), make_gan()
    for seed in range(2):
        model.prepare(loader_batch(seed), np.random.default_rng(seed))
    state = model.extra_state()
    assert state["pair_queue"]["gt"].shape == (4, 3, 32, 32) and state["pair_queue"]["gt"].dtype == torch.uint8
    resumed.load_extra_state([{}, state], rank=3)  # of a run with two processes; this is the fourth of a larger one
    assert len(resumed.source.maker.queue) == 4
    resumed.load_extra_state([state], rank=0)
    batches = [m.prepare(loader_batch(5), np.random.default_rng(5)) for m in (model, resumed)]
    assert torch.equal(batches[0]["lq"], batches[1]["lq"])


@pytest.mark.parametrize("stage", ["mse", "gan"])
def test_recipes_describe_the_published_degradation(stage):
    options = parse_train_options(ROOT / "options" / "train" / f"RealSR_x4_{stage}.yml")
    maker = build_pair_maker(options)
    assert (maker.first, maker.second) == (FIRST_ROUND, SECOND_ROUND)
    assert (maker.scale, maker.gt_size, maker.queue.capacity) == (4, 256, 180)


def test_the_recipe_builds_the_model(tmp_path):
    generator = torch.Generator().manual_seed(0)
    torch.save(
        {
            "features.0.weight": torch.randn(64, 3, 3, 3, generator=generator),
            "features.0.bias": torch.zeros(64),
            "features.2.weight": torch.randn(64, 64, 3, 3, generator=generator),
            "features.2.bias": torch.zeros(64),
        },
        tmp_path / "vgg.pth",
    )
    overrides = [
        "path:pretrain_network_g=~",
        "network_g:depths=[1]",
        "network_g:embed_dim=32",
        "network_d:num_feat=4",
        "train:perceptual_opt:layer_weights={conv1_2: 1.0}",
        f"train:perceptual_opt:vgg_weights={tmp_path / 'vgg.pth'}",
        "train:amp=none",
    ]
    options = parse_train_options(ROOT / "options" / "train" / "RealSR_x4_gan.yml", force_yml=overrides)
    model = AdversarialModel.from_options(options, CPU)
    assert set(model.optimizers) == {"net_g", "net_d"} and set(model.averages) == {"net_g"}
    assert model.sharpened == SharpenedTargets(True, True, False)
    assert set(model.losses) == {"l_pix", "l_percep"} and model.gan_loss.loss_weight == 0.1
