"""The schema of option files: one typed section per YAML block, field names as the files write them.

Settings are typed here. Components (network_g, optim_g, losses, metrics, ...) stay dicts `{'type': name, **keywords}`:
the registries check them against the constructor's own signature where they are built.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, PrivateAttr, field_validator, model_validator

from mambair.options.dataset_schema import DatasetOptions, DatasetSection
from mambair.options.degradation_schema import DegradationFields
from mambair.options.fields import (
    ConflictError,
    Count,
    Flag,
    GpuCount,
    ModelName,
    NetworkBlock,
    PlainName,
    SpecList,
    Whole,
)
from mambair.options.sections import DistOptions, LoggerOptions, PathOptions, TrainSection, ValOptions
from mambair.options.source import OptionSource

Options = TypeVar("Options", bound="_CommonOptions")


@dataclass(frozen=True)
class TrainingStage:
    """A stretch of training with one total batch and patch size."""

    first_iter: int
    """Iterations done before the stage begins."""
    total_batch: int
    """Images per optimiser step over all processes and micro-batches."""
    gt_size: int | None
    """Side of the ground-truth patch in pixels; None for whole images."""


class _CommonOptions(DegradationFields):
    """What training and test files share."""

    name: PlainName
    """Name of the experiment: its folder in experiments/ or results/."""
    model_type: ModelName = "MambaIRModel"
    """Registered training model: MambaIRModel, ImageCleanModel, MambaIRGANModel, ..."""
    scale: Annotated[Whole, Field(ge=1, le=8)] = 1
    """Upscaling factor; 1 for denoising and JPEG."""
    num_gpu: GpuCount = "auto"
    """GPUs the recipe is written for; auto takes those there are, 0 the CPU."""
    manual_seed: Count = 0
    """Seed of every random draw."""
    deterministic: Flag = False
    """Bit-identical runs on the same machine, at some cost in speed on a GPU."""
    plugins: SpecList = []
    """Own code to load first: Python files, relative to this file, and modules; they register networks, losses, ..."""
    datasets: dict[str, DatasetSection]
    """Data sets by phase: train, val, val_2, test_1, ...; one that is ~ is left out."""
    network_g: NetworkBlock
    """The restoration network."""
    path: PathOptions = PathOptions()
    """Weights and states to start from."""
    dist_params: DistOptions = DistOptions()
    """Processes that train together."""

    _source: OptionSource = PrivateAttr(default_factory=OptionSource)

    @property
    def source(self) -> OptionSource:
        """Where the options come from: file, line numbers, warnings."""
        return self._source

    def with_source(self: Options, source: OptionSource) -> Options:
        """The same options, knowing where they come from."""
        options = self.model_copy()
        options._source = source
        return options

    def where(self, key: str) -> str:
        """`file:line: key` for messages about a key path such as 'train.optim_g'."""
        return self._source.where(key)

    @field_validator("datasets", mode="before")
    @classmethod
    def _leave_out_empty(cls, sections: Any) -> Any:
        # --force_yml datasets:test_5=~ tests on the other sets of a recipe.
        if isinstance(sections, dict):
            return {phase: section for phase, section in sections.items() if section is not None}
        return sections

    @model_validator(mode="after")
    def _scales_agree(self) -> "_CommonOptions":
        upscale = self.network_g.get("upscale", self.scale)
        if upscale != self.scale:
            raise ConflictError(f"is {upscale!r} but scale is {self.scale}; make them equal", "network_g.upscale")
        return self

    @model_validator(mode="after")
    def _phases_are_known(self) -> "_CommonOptions":
        for phase in self.datasets:
            if not re.fullmatch(r"train|(val|test)(_\w+)?", phase):
                raise ConflictError("unknown key; expected train, val, val_2, ..., test_1, ...", f"datasets.{phase}")
        names = [self.dataset_name(phase) for phase in self.datasets if phase != "train"]
        for name in names:
            if names.count(name) > 1:
                raise ConflictError(f"two data sets are called '{name}'", "datasets")
        return self

    def dataset_name(self, phase: str) -> str:
        """The name of a data set section in tables and folders."""
        return self.datasets[phase].name or phase

    def evaluation_datasets(self) -> dict[str, DatasetOptions]:
        """Name -> section of every data set but the training one, in the file's order."""
        return {self.dataset_name(phase): section for phase, section in self.datasets.items() if phase != "train"}


class TrainOptions(_CommonOptions):
    """A training option file."""

    network_d: NetworkBlock | None = None
    """The discriminator."""
    train: TrainSection
    """Losses, optimisers, schedule and precision."""
    val: ValOptions | None = None
    """Validation while training."""
    logger: LoggerOptions = LoggerOptions()
    """What the run writes, and how often."""

    @model_validator(mode="after")
    def _can_train(self) -> "TrainOptions":
        dataset = self.datasets.get("train")
        if dataset is None:
            raise ConflictError("section 'train' is missing", "datasets")
        if dataset.batch_size_per_gpu is None and not dataset.is_progressive:
            raise ConflictError("key 'batch_size_per_gpu' is missing", "datasets.train")
        if self.train.gan_opt is not None and self.network_d is None:
            raise ConflictError("needs network_d, the discriminator", "train.gan_opt")
        for size in [*dataset.gt_sizes, dataset.gt_size or self.scale]:
            if size % self.scale:
                raise ConflictError(f"{size} is no multiple of scale {self.scale}", "datasets.train.gt_size")
        if self.val is not None and self.val.val_freq is not None and not self.evaluation_datasets():
            raise ConflictError("there is no data set to validate on; add datasets.val, or make it ~", "val.val_freq")
        return self

    def stages(self, world_size: int) -> list[TrainingStage]:
        """Total batch and patch size over the run; one stage unless training is progressive.

        The total batch is num_gpu * batch_size_per_gpu as the file states it, whatever the number of processes
        `world_size`; only `num_gpu: auto` follows it.
        """
        dataset = self.datasets["train"]
        replicas = world_size if isinstance(self.num_gpu, str) else max(1, self.num_gpu)
        if not dataset.is_progressive:
            assert dataset.batch_size_per_gpu is not None, "checked when the file was read"
            return [TrainingStage(0, replicas * dataset.batch_size_per_gpu, dataset.gt_size)]
        starts = [sum(dataset.iters[:stage]) for stage in range(len(dataset.iters))]
        return [
            TrainingStage(start, replicas * batch, size)
            for start, batch, size in zip(starts, dataset.mini_batch_sizes, dataset.gt_sizes, strict=True)
        ]


class TestOptions(_CommonOptions):
    """A test option file."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    val: ValOptions = ValOptions()
    """How images are restored and judged."""
    logger: LoggerOptions = LoggerOptions()
    """Accepted for files that carry it."""

    @model_validator(mode="after")
    def _can_test(self) -> "TestOptions":
        if not self.evaluation_datasets():
            raise ConflictError("no data set to test on; add test_1", "datasets")
        return self
