"""How many threads the arithmetic of small networks gets: one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def single_threaded(wanted: bool = True) -> Iterator[None]:
    """One thread for torch's and for NumPy's linear algebra, if `wanted`; afterwards as before.

    Matrices of control are too small to share out: on several threads they are slower, and beside a busy
    process many times slower.
    """
    if not wanted:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)
