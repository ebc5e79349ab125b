"""The tests' arithmetic is small: on several threads, beside xdist's other workers, it is many times slower."""

import torch

torch.set_num_threads(1)
