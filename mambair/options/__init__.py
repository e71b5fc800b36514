"""Option files: a typed schema, and the parsing of YAML and command lines into it."""

from mambair.options.dataset_schema import DatasetOptions
from mambair.options.schema import TestOptions, TrainingStage, TrainOptions
from mambair.options.sections import LoggerOptions, MixingOptions, PathOptions, TrainSection, ValOptions

__all__ = [
    "DatasetOptions",
    "LoggerOptions",
    "MixingOptions",
    "PathOptions",
    "TestOptions",
    "TrainOptions",
    "TrainSection",
    "TrainingStage",
    "ValOptions",
]
