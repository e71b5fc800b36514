"""What the commands train and test share: joining the other processes, and leaving them."""

import traceback
from collections.abc import Callable

from mambair.errors import UserError
from mambair.options import RunArguments
from mambair.options.sections import DistOptions
from mambair.runtime.distributed import ProcessGroup, ending_together, init_distributed, shutdown
from mambair.runtime.log_setup import setup_logging


def run_together(arguments: RunArguments, dist: DistOptions, action: Callable[[ProcessGroup], int]) -> int:
    """Join the processes that the launcher started, do `action` in each, and leave; returns its exit code.

    An error in one process ends all of them. With --debug a UserError's traceback is shown before its message.
    """
    group = init_distributed(
        arguments.launcher, dist.backend, port=dist.port, timeout=dist.timeout, local_rank=arguments.local_rank
    )
    setup_logging(None, group.rank, arguments.debug)
    try:
        with ending_together():
            code = action(group)
            shutdown()
    except UserError:
        if arguments.debug:
            traceback.print_exc()
        raise
    return code
