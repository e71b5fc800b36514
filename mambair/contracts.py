"""What the parts that option files name must be like: one protocol for each kind, whose docstring is its contract.

`mambair.registry` has a registry for each of them. Networks are `torch.nn.Module`s, optimisers `torch.optim.Optimizer`s
and data sets those of `mambair.data.contracts`; they need no protocol of their own here.
"""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@runtime_checkable
class Loss(Protocol):
    """Called with the restored batch and the ground truth, both (B, C, H, W), it gives a scalar that is to fall.

    In training both are float32 in about [0, 1]. A `torch.nn.Module` is moved to the device of the run. A loss whose
    call has a parameter `averaged` is also given what the averaged network (train.ema_decay) makes of the batch.

        @LOSSES.register()
        class TotalVariation(nn.Module):
            def forward(self, prediction, target):
                return prediction.diff(dim=-1).abs().mean()
    """

    def __call__(self, prediction: "Tensor", target: "Tensor") -> "Tensor":
        """The loss of a batch, a scalar."""
        ...


@runtime_checkable
class AdversarialLoss(Protocol):
    """What stands under `train.gan_opt`: both sides' losses on the discriminator's logits, of any shape; scalars."""

    def generator_loss(self, fake_logits: "Tensor") -> "Tensor":
        """Low where the discriminator takes restored images for real."""
        ...

    def discriminator_loss(self, real_logits: "Tensor", fake_logits: "Tensor") -> "Tensor":
        """Low where the discriminator tells real from restored."""
        ...


class Metric(Protocol):
    """A function of a restored uint8 RGB image (H, W, C), and of its ground truth if it has a parameter `reference`.

    `higher_is_better` is set where it is registered. Functions with BasicSR's arguments `img` and `img2` are given
    images in BGR order, as BasicSR gives them.

        @METRICS.register(higher_is_better=False)
        def mean_error(image, reference):
            return float(np.abs(image.astype(float) - reference).mean())
    """

    higher_is_better: bool

    def __call__(self, *images: Any, **keywords: Any) -> float:
        """The metric of one image."""
        ...


class ModelClass(Protocol):
    """How networks are trained: a `mambair.models.base_model.TrainableModel` that can be made from an option file.

    Derive it from RestorationModel, and change what differs:

        @MODELS.register()
        class MyModel(RestorationModel):
            def training_step(self, batch):
                losses = super().training_step(batch)
                return losses | {"l_mine": ...}
    """

    def from_options(self, options: Any, device: "torch.device") -> Any:
        """A classmethod: the model that the options describe, on the device, with optimisers, ready to be trained."""
        ...


class Schedule(Protocol):
    """A learning rate for each iteration, computed from nothing but its number: a resumed run has the same.

    A class of `torch.optim.lr_scheduler`'s kind, built with an optimiser and stepped, can be registered as well.

        @SCHEDULERS.register()
        class Halving:
            def __init__(self, every: int):
                self.every = every
            def __call__(self, iteration, base_lr):
                return base_lr * 0.5 ** (iteration // self.every)
    """

    def __call__(self, iteration: int, base_lr: float) -> float:
        """The rate of the step that follows `iteration` completed ones."""
        ...


class Augmentation(Protocol):
    """Changes training pairs: low quality and ground truth alike, by draws from the given random generator only.

    Under datasets.train.augmentations it is called in a loader process with one pair, (C, h, w) and (C, s*h, s*w);
    under train.augmentations with a whole batch on the device, (B, C, h, w) and (B, C, s*h, s*w), s the scale. Tensors
    that are given are not written into. One that needs a batch says `per_batch = True`, one that can only be for single
    pairs `per_batch = False`; without the attribute it is taken to be for both.

        @AUGMENTATIONS.register()
        class Negative:
            def __call__(self, lq, gt, rng):
                return (1 - lq, 1 - gt) if rng.random() < 0.5 else (lq, gt)
    """

    def __call__(self, lq: "Tensor", gt: "Tensor", rng: "np.random.Generator") -> "tuple[Tensor, Tensor]":
        """The changed pair, of the same shapes."""
        ...


class RandomNumbers(Protocol):
    """What draws noise and strengths: NumPy's Generator, or RandomState for the fixed stream of the test protocol."""

    def normal(self, loc: float, scale: float, size: "tuple[int, ...]") -> "np.ndarray":
        """Normally distributed float64 numbers."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number that is evenly distributed from `low` to `high`."""
        ...


class Degradation(Protocol):
    """Makes a low-quality image of a whole image, or of a part that is cut as the attributes say.

    @DEGRADATIONS.register()
    class BoxBlur:
        scale, alignment, margin = 1, 1, 1
        def __call__(self, image, rng):
            return cv2.blur(image, (3, 3))
    """

    @property
    def scale(self) -> int:
        """How many times smaller the result is."""
        ...

    @property
    def alignment(self) -> int:
        """Parts must start and end on multiples of this, so that they degrade as they do in the whole image."""
        ...

    @property
    def margin(self) -> int:
        """Pixels around a part that influence it."""
        ...

    def __call__(self, image: "np.ndarray", rng: RandomNumbers) -> "np.ndarray":
        """(H, W, C) integer pixels to (H/scale, W/scale, C) integer pixels or floats in [0, 1]."""
        ...
