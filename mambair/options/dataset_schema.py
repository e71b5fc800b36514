"""The `datasets.train`, `datasets.val`, `datasets.test_1`, ... sections."""

from inspect import signature
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from mambair.options.degradation_schema import KernelFields
from mambair.options.fields import (
    AugmentationBlock,
    ConflictError,
    Count,
    DatasetName,
    DegradationList,
    FileTemplate,
    Flag,
    PathList,
    PlainName,
    Positive,
    Real,
    Section,
    Whole,
)
from mambair.registry import DATASETS

Task = Literal["SR", "CAR", "denoising_color", "denoising_gray"]


class IoBackendOptions(Section):
    """Where a data set's files lie."""

    type: Literal["disk", "lmdb"] = "disk"
    """disk: image files in folders; lmdb: databases whose folder names end in .lmdb."""


class DatasetOptions(KernelFields):
    """One data set. A user's own roots may point anywhere, `../data` included; what is looked up inside
    a root (meta-info entries, LMDB keys, file name templates) may not leave it."""

    type: DatasetName
    """Registered data set: PairedImageDataset, SyntheticDataset, RealESRGANDataset, SingleImageDataset, ..."""
    name: PlainName | None = None
    """Name in tables and folders; the section's key if left out."""
    task: Task | None = None
    """What the pairs are for: SR, CAR (JPEG), denoising_color or denoising_gray; noise is added on the fly."""
    noise: Annotated[Real, Field(ge=0, le=255)] | None = None
    """Standard deviation of the Gaussian noise to add, on the 0-255 scale."""
    quality: Annotated[Whole, Field(ge=1, le=100)] | None = None
    """JPEG quality of compression on the fly (CAR without dataroot_lq)."""
    degradation: DegradationList = []
    """How low-quality images are made of dataroot_gt (SyntheticDataset), in place of task: one registered degradation,
    or several that are applied in this order: BicubicReduction, GaussianNoise, JpegArtifacts, ..."""
    dataroot_gt: PathList = []
    """Folder, LMDB, or list of them, with ground-truth images."""
    dataroot_lq: PathList = []
    """The low-quality partners, as many roots as dataroot_gt; left out where they are made on the fly."""
    meta_info_file: PathList = []
    """Text file that lists the images to use, one relative path a line; one file per root."""
    filename_tmpl: FileTemplate = "{}"
    """Low-quality file name for a ground-truth name, without extension: '{}x2' pairs baby.png with babyx2.png."""
    filename_tmpl_gt: FileTemplate = "{}"
    """Ground-truth file name likewise: '{}_SRF_2_HR' reads img_1_SRF_2_HR.png as img_1; other files are left out."""
    io_backend: IoBackendOptions = IoBackendOptions()
    """Image files or LMDB."""
    color: Literal["rgb", "y", "gray"] | None = None
    """rgb, gray (colour files converted as OpenCV does) or y (MATLAB's Y channel); gray for CAR and denoising_gray if
    left out, else rgb. For CAR, y is rounded before it is compressed, and gray files stay as they are."""
    mean: list[Real] | None = None
    """Per-channel mean subtracted from both images of a pair, in [0, 1] units."""
    std: list[Real] | None = None
    """Per-channel divisor of both images of a pair, in [0, 1] units."""

    gt_size: Positive | None = None
    """Side of the random ground-truth patch in pixels."""
    use_hflip: Flag = False
    """Random horizontal flips."""
    use_rot: Flag = False
    """Random vertical flips and rotations by 90 degrees."""
    geometric_augs: Flag = False
    """Random flips and rotations: one of the eight symmetries of the square (ImageCleanModel's name)."""
    augmentations: list[AugmentationBlock] = []
    """What is done with single pairs while they are loaded, in this order: ChannelShuffle, CutBlur, ..."""
    mini_batch_sizes: list[Positive] = []
    """Progressive training: per-GPU batch of each stage."""
    iters: list[Positive] = []
    """Progressive training: iterations of each stage; the last stage goes on to the end."""
    gt_sizes: list[Positive] = []
    """Progressive training: ground-truth patch of each stage."""
    use_shuffle: Flag = True
    """Draw training images in a new random order every epoch."""
    batch_size_per_gpu: Positive | None = None
    """Images per iteration and GPU; times num_gpu this is the total batch, whatever the hardware."""
    num_worker_per_gpu: Count = 4
    """Loader processes per GPU; 0 loads in the training process."""
    dataset_enlarge_ratio: Positive = 1
    """Times the list of images is repeated in one epoch."""
    pin_memory: Flag = True
    """Load batches into page-locked memory, which speeds up copies to the GPU."""
    max_bad_samples: Count = 100
    """Unreadable images replaced by others during a run before it stops."""

    @property
    def is_progressive(self) -> bool:
        """Whether patches and batches change during training."""
        return bool(self.iters)

    @model_validator(mode="after")
    def _keys_agree(self) -> "DatasetOptions":
        stages = {"mini_batch_sizes": self.mini_batch_sizes, "iters": self.iters, "gt_sizes": self.gt_sizes}
        if len({len(stage) for stage in stages.values()}) > 1:
            counts = ", ".join(f"{key} {len(stage)}" for key, stage in stages.items())
            raise ConflictError(f"progressive training needs one entry per stage in each list, got {counts}", "iters")
        if self.dataroot_lq and self.dataroot_gt and len(self.dataroot_lq) != len(self.dataroot_gt):
            raise ConflictError(
                f"has {len(self.dataroot_lq)} roots but dataroot_gt has {len(self.dataroot_gt)}", "dataroot_lq"
            )
        if self.task is not None and self.degradation:
            raise ConflictError(f"says already what task: {self.task} would; leave out one of them", "degradation")
        if self.dataroot_lq and self.degradation:
            raise ConflictError("makes low-quality images, but dataroot_lq names some; leave out one", "degradation")
        if (self.task or "").startswith("denoising") and self.noise is None and not self.dataroot_lq:
            raise ConflictError("needs 'noise' (the sigma to add, 0-255) or 'dataroot_lq'", "task")
        for key in ("mean", "std"):
            if getattr(self, key) is not None and len(getattr(self, key)) not in (1, 3):
                raise ConflictError("expected one number per channel (1 or 3)", key)
        if self.std is not None and min(self.std) <= 0:
            raise ConflictError("expected positive numbers", "std")
        return self


class PluginDatasetOptions(DatasetOptions):
    """The section of a plug-in's data set: it may hold keys of its own, which its constructor is given."""

    model_config = ConfigDict(extra="allow")


def has_own_keys(name: str) -> bool:
    """Whether a registered data set is built with keywords of its own, not by a builder that reads the section."""
    return name in DATASETS and list(signature(DATASETS.get(name)).parameters) != ["section", "context"]


def _open_to_plugins(section: Any, handler: ValidatorFunctionWrapHandler) -> DatasetOptions:
    """Let the section of a plug-in's data set have more keys; they are checked where the data set is built."""
    if isinstance(section, dict) and has_own_keys(str(section.get("type"))):
        return PluginDatasetOptions.model_validate(section)
    return handler(section)


DatasetSection = Annotated[SerializeAsAny[DatasetOptions], WrapValidator(_open_to_plugins)]
