"""mambair/train.py for torchrun, with something that happens to one of its processes: the environment's FAULT.

It happens once, not again after a restart.
"""

import json
import os
import sys

from mambair.commands.train import main
from tests.faults.happenings import let_happen

if __name__ == "__main__":
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        let_happen(json.loads(os.environ["FAULT"]), int(os.environ["RANK"]))
    sys.exit(main())
