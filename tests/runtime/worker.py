"""One of two processes that test_distributed.py starts: worker.py MODE PORT, with SLURM's variables set."""

import os
import signal
import sys
import threading
import time

import torch

from mambair.errors import UserError
from mambair.runtime import distributed, failure_watch

mode, port = sys.argv[1], int(sys.argv[2])
failure_watch.POLL_SECONDS = 0.1
failure_watch.GRACE_SECONDS = 3.0

with distributed.ending_together():
    group = distributed.init_distributed("slurm", port=port, timeout=50)
    gathered = distributed.all_gather_object(10 * group.rank)
    word = distributed.broadcast_object("zero" if group.rank == 0 else "one")
    mean = distributed.reduce_mean({"x": torch.tensor(float(group.rank))})
    print(
        f"rank {group.rank} of {group.world_size} gathered {gathered} broadcast {word} mean {mean} "
        f"main {distributed.is_main_process()}",
        flush=True,
    )
    if mode == "fail":
        if group.rank == 1:
            threading.Thread(target=time.sleep, args=(40,)).start()
            raise UserError("x.yml:3: train.lr: too high")
        distributed.barrier()
    if mode == "kill":
        if group.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(40)  # busy outside a collective: nothing but the watch can end it
    distributed.shutdown()
print("left")
