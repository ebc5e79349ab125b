"""What torchrun tells each process that it starts, read without importing torch (see `rllab.distributed`)."""

import os


def launched_processes() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def launched_rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0")) if launched_processes() > 1 else 0
