"""`mambair train`: a run from an option file.

Exit codes: 0 finished; 2 something is wrong with the options, the data, the weights or the numbers; 130 stopped by
Ctrl-C and 143 stopped by SIGTERM, both with a checkpoint to go on from; 1 any other failure.
"""

from collections.abc import Sequence
from contextlib import ExitStack

from mambair.commands.exit_codes import reports_user_errors
from mambair.commands.options.check import all_mistakes_told, refuse_mistakes
from mambair.commands.runs_together import run_together
from mambair.engine.train.run import TrainingRun
from mambair.options import parse_run_arguments, parse_train_options
from mambair.runtime.distributed import ProcessGroup
from mambair.runtime.freed_memory import keep_freed_memory
from mambair.runtime.run_folders import claimed_experiment

DESCRIPTION = (
    "Train a network. Weights, states and the log go to experiments/<name>; an earlier run of that name is archived, "
    "unless --auto_resume goes on with it."
)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_run_arguments(argv, "mambair train", DESCRIPTION)
    with all_mistakes_told():
        options = parse_train_options(
            arguments.opt, force_yml=arguments.force_yml, debug=arguments.debug, plugins=arguments.plugins
        )

    def train(group: ProcessGroup) -> int:
        refuse_mistakes([options])
        with ExitStack() as claims:
            if group.rank == 0:  # before the newest checkpoint is looked for, which nobody else may be writing
                claims.enter_context(claimed_experiment(options.path.root, options.name))
            run = TrainingRun(options, group, arguments.auto_resume)
            if run.model.device.type == "cpu":
                keep_freed_memory()
            return run.run(arguments.debug)

    return run_together(arguments, options.dist_params, train)
