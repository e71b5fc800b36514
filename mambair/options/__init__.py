"""Option files: a typed schema, and the parsing of YAML and command lines into it."""

from mambair.options.command_line import (
    RunArguments,
    add_force_yml,
    add_plugin_argument,
    add_run_arguments,
    parse_run_arguments,
    run_arguments,
)
from mambair.options.dataset_schema import DatasetOptions
from mambair.options.parsing import (
    OptionMistakes,
    dump_options,
    parse_options,
    parse_test_options,
    parse_train_options,
)
from mambair.options.schema import TestOptions, TrainingStage, TrainOptions
from mambair.options.sections import LoggerOptions, MixingOptions, PathOptions, TrainSection, ValOptions

__all__ = [
    "DatasetOptions",
    "LoggerOptions",
    "MixingOptions",
    "OptionMistakes",
    "PathOptions",
    "RunArguments",
    "TestOptions",
    "TrainOptions",
    "TrainSection",
    "TrainingStage",
    "ValOptions",
    "add_force_yml",
    "add_plugin_argument",
    "add_run_arguments",
    "dump_options",
    "parse_options",
    "parse_run_arguments",
    "parse_test_options",
    "parse_train_options",
    "run_arguments",
]
