"""Whether torchrun started several processes, and which of them this is, without importing torch.

`rllab.distributed` has what they tell one another.
"""

import os
from dataclasses import dataclass


def launched_processes() -> int:
    """How many processes torchrun started; 1 without it, whatever else calls itself a rank."""
    count = os.environ.get("WORLD_SIZE", "")
    return int(count) if count.isdecimal() and "TORCHELASTIC_RUN_ID" in os.environ else 1


@dataclass
class Together:
    """The processes that train one model, once they have met (`rllab.distributed.joined`)."""

    processes: int = 1
    rank: int = 0


TOGETHER = Together()
