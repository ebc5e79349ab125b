"""torch's LSTM, where it may be computed in bfloat16 and where it may not."""

from functools import cache
from typing import Any

import torch
from torch import nn


class LSTM(nn.LSTM):
    """`torch.nn.LSTM`; under autocast to bfloat16 in float32, on processors that have no such LSTM in bfloat16."""

    def forward(self, x, state=None):  # type: ignore[no-untyped-def]
        """As `torch.nn.LSTM`."""
        if not autocast_to_bfloat16(x) or bfloat16_lstm_works():
            return super().forward(x, state)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float(), None if state is None else tuple(part.float() for part in state))


def autocast_to_bfloat16(x: Any) -> bool:
    """Whether products of `x`, a tensor or packed rows, are in bfloat16 now on a CPU."""
    data = x.data
    return (
        data.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


@cache
def bfloat16_lstm_works() -> bool:
    """Whether this processor has oneDNN's LSTM in bfloat16, with derivatives: most have not, and say so when called."""
    with torch.random.fork_rng(devices=[]):  # its first weights are nothing to the numbers that a training draws
        lstm = nn.LSTM(8, 8, batch_first=True).bfloat16()
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            lstm(torch.ones(2, 3, 8, dtype=torch.bfloat16))[0].sum().backward()
    except (AttributeError, RuntimeError):  # another version of torch, another processor
        return False
    return True
