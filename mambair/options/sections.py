"""The `path`, `train`, `val`, `logger` and `dist_params` sections of an option file."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from mambair.options.fields import (
    AugmentationBlock,
    ConflictError,
    Count,
    FilePath,
    Flag,
    LossBlock,
    LossName,
    MetricBlock,
    OptimizerBlock,
    PlainName,
    Positive,
    Precision,
    Real,
    SchedulerBlock,
    Section,
    Switch,
    Text,
    TileSize,
    Whole,
)
from mambair.registry import did_you_mean


class PathOptions(Section):
    """Weights and states to start from. `~` is expanded; relative paths start at the working directory."""

    pretrain_network_g: FilePath | None = None
    """Weights of the restoration network to start from or to test: a file, or a name of `mambair weights list`."""
    param_key_g: Text | None = None
    """Which weights of the file to take: params or params_ema; if left out, the averaged ones where it has both."""
    strict_load_g: Flag = True
    """All weights must fit; false skips the head's (and lists them), to start x3 or x4 from x2."""
    pretrain_network_d: FilePath | None = None
    """Weights of the discriminator."""
    param_key_d: Text | None = None
    """As param_key_g, for the discriminator."""
    strict_load_d: Flag = True
    """As strict_load_g, for the discriminator."""
    resume_state: FilePath | None = None
    """Training state (experiments/<name>/training_states/<iter>.state) to go on from."""
    root: FilePath = Path()
    """Folder that receives experiments/, results/ and tb_logger/."""


class MixingOptions(Section):
    """MixUp between the images of a batch (ImageCleanModel)."""

    mixup: Flag = False
    """Blend pairs of samples."""
    mixup_beta: Annotated[Real, Field(gt=0)] = 1.2
    """Both parameters of the Beta distribution the blending weight is drawn from."""
    use_identity: Flag = False
    """Leave a batch as it is every other time, on average."""


class LossOptions(Section):
    """One loss of the list `train.losses`. Further keys are keywords of the loss."""

    model_config = ConfigDict(extra="allow")

    type: LossName
    """Registered loss: L1Loss, MSSSIMLoss, FourierLoss, ..."""
    name: PlainName | None = None
    """Name in logs and curves; l_ and the type if left out."""
    weight: Real = 1.0
    """Factor of the loss in the sum."""
    on: Literal["rgb", "y"] = "rgb"
    """Compare the images as they are, or their BT.601 luma alone (y)."""
    from_iter: Count = 0
    """Iterations that are done before the loss begins to count."""

    @property
    def component(self) -> dict[str, Any]:
        """The loss's type and keywords."""
        return {"type": self.type, **(self.model_extra or {})}


class TrainSection(Section):
    """Losses, optimisers, schedule and precision."""

    total_iter: Positive
    """Optimiser steps in all."""
    warmup_iter: Annotated[Whole, Field(ge=-1)] = -1
    """Steps over which the learning rate rises linearly from 0; -1 for none."""
    ema_decay: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights; 0 for none."""
    ema_warmup: Flag = False
    """Let the decay grow, min(ema_decay, (1 + n) / (10 + n)) at update n: the average forgets its start."""
    optim_g: OptimizerBlock
    """Optimiser of the restoration network."""
    optim_d: OptimizerBlock | None = None
    """Optimiser of the discriminator."""
    scheduler: SchedulerBlock | None = None
    """Learning-rate schedule; constant if left out."""
    pixel_opt: LossBlock | None = None
    """Pixel loss."""
    perceptual_opt: LossBlock | None = None
    """Perceptual loss."""
    gan_opt: LossBlock | None = None
    """Adversarial loss; needs network_d and optim_d."""
    losses: list[LossOptions] = []
    """Any number of losses, beside the three above or in their place; their weighted sum is minimised."""
    net_d_iters: Positive = 1
    """The generator is updated every net_d_iters discriminator steps."""
    net_d_init_iters: Count = 0
    """Steps that train the discriminator alone at first."""
    use_grad_clip: Flag = False
    """Clip the gradient's norm before every step."""
    grad_clip_norm: Annotated[Real, Field(gt=0)] = 0.01
    """Largest gradient norm where use_grad_clip is on."""
    mixing_augs: MixingOptions = MixingOptions()
    """MixUp, as published files of real denoising write it."""
    augmentations: list[AugmentationBlock] = []
    """What is done with whole batches on the device, in this order: MixUp, CutMix, CutBlur, ResizeMix, ..."""
    amp: Precision = "none"
    """Mixed precision: auto is bf16 on GPUs that have it, fp16 on older ones, none on the CPU; scans stay fp32."""
    compile: Switch = "auto"
    """Compile the network's blocks with torch.compile, which takes a minute; auto: on GPUs, where a run gains by it."""
    cuda_graph: Switch = "auto"
    """Replay forward and backward passes as CUDA graphs; auto does so on GPUs, for all models but adversarial ones."""
    skip_nonfinite: Count = 0
    """Steps in a row with a non-finite loss or gradient that are skipped before the run stops."""

    @model_validator(mode="after")
    def _has_a_loss(self) -> "TrainSection":
        published = (self.pixel_opt, self.perceptual_opt, self.gan_opt)
        if published == (None, None, None):
            if not self.losses:
                raise ConflictError("no loss; give pixel_opt, as {type: L1Loss, loss_weight: 1.0, reduction: mean}")
            if all(loss.from_iter > 0 for loss in self.losses):
                raise ConflictError("no loss counts from the beginning; leave out from_iter of one", "losses")
        if self.mixing_augs.mixup and self.augmentations:
            raise ConflictError("is the older way to write MixUp; add {type: MixUp} to augmentations", "mixing_augs")
        if self.gan_opt is not None and self.optim_d is None:
            raise ConflictError("needs train.optim_d, the discriminator's optimiser", "gan_opt")
        return self


class ValOptions(Section):
    """How images are restored and judged, while training and in tests."""

    val_freq: Positive | None = None
    """Iterations between validations; none while training if left out."""
    patience: Positive | None = None
    """Validations in a row without a better first metric after which training ends; it never does if left out."""
    save_img: Flag = False
    """Write restored images."""
    suffix: PlainName | None = None
    """Appended to the names of saved images, in place of the experiment's name."""
    metrics: dict[str, MetricBlock] = {}
    """Name in tables -> metric."""
    best: Text | None = None
    """The metric that picks the best checkpoint, by its name in `metrics`; the first one if left out."""
    pbar: Flag = True
    """Show a progress bar."""
    tile: TileSize = "published"
    """published: the reference implementation's tiles; none: whole images; N: tiles of N pixels."""
    self_ensemble: Flag = False
    """Average over the eight flips and rotations (MambaIR+)."""
    amp: Precision = "none"
    """Mixed precision of validation and tests; published numbers are fp32."""

    @model_validator(mode="after")
    def _best_is_a_metric(self) -> "ValOptions":
        if self.best is not None and self.best not in self.metrics:
            hint = did_you_mean(self.best, self.metrics)
            raise ConflictError(f"'{self.best}' is not among val.metrics{hint}", "best")
        return self


class WandbOptions(Section):
    """Weights & Biases; off without a project."""

    project: Text | None = None
    """Project to log to."""
    resume_id: Text | None = None
    """Run to go on with."""


class LoggerOptions(Section):
    """What a run writes, and how often."""

    print_freq: Positive = 100
    """Iterations between log lines."""
    save_checkpoint_freq: Positive = 5000
    """Iterations between checkpoints."""
    use_tb_logger: Flag = False
    """Write TensorBoard logs to tb_logger/<name>."""
    wandb: WandbOptions = WandbOptions()
    """Weights & Biases."""
    keep_checkpoints: Positive | None = None
    """Newest checkpoints to keep, the best one besides; all if left out."""


class DistOptions(Section):
    """Processes that train together."""

    backend: Literal["nccl", "gloo"] = "nccl"
    """nccl for GPUs; the CPU always uses gloo."""
    port: Annotated[Whole, Field(ge=1024, le=65535)] = 29500
    """Port of the first process, where the launcher does not set one (SLURM)."""
    timeout: Annotated[Real, Field(gt=0)] = 1800.0
    """Seconds a process waits for the others before the run is given up."""
