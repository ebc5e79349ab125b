"""Language models beside their peers: tokens a second of training and of generation, on the same work.

Training: a GPT of GPT-2's order (pre-norm, learned positions, tied output), AdamW, on random tokens: nanoGPT's model
(`--nanogpt path/to/model.py`, its own file) and transformers' GPT-2. Generation: prompts of 32 tokens, 96 new ones
drawn at temperature 1, with a cache of keys and values; transformers' `generate`. The limit of training is the
machine's product of matrices, measured in the same run.
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from common import Contender, console, interleave, print_machine, timed
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from language.decoding import DecodingConfig, generate
from language.models.gpt import GPT, GPTConfig
from language.training.language_modelling import next_token_cross_entropy
from language.training.peak import peak_operations_per_second, training_operations

SHAPES = {"S": (4, 128, 128, 512, 32), "M": (4, 256, 256, 1024, 16), "L": (6, 384, 256, 1024, 8)}
"""Layers, width, length, vocabulary, batch; heads of 64 (S: 32)."""
PROMPT, NEW = 32, 96


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    nanogpt: Path | None = None
    """nanoGPT's model.py."""
    shapes: tuple[str, ...] = ("M", "L")
    """Of training: S, M, L."""
    batches: tuple[int, ...] = (1, 16, 64)
    """Rows of generation, with shape M."""
    repetitions: int = 5
    """How often each contender takes its turn, after one warm-up."""
    threads: int = 2
    """Of torch, on all sides."""
    bfloat16: bool = False
    """Train in bfloat16 too (slow on processors without it)."""


def ours(shape: str, activation: Literal["gelu", "gelu_tanh"] = "gelu_tanh") -> GPT:
    """Our model, with the GELU of the peer beside it: nanoGPT's is exact, GPT-2's is approximated by tanh."""
    layers, width, length, vocabulary, _ = SHAPES[shape]
    config = GPTConfig(vocabulary, length, layers, _heads(shape), width, activation=activation, norm="pre", dropout=0.0)
    return GPT(config)


def _heads(shape: str) -> int:
    return 4 if shape in "SM" else 6


def nanogpt(path: Path, shape: str) -> nn.Module:
    """The peer, from its own file."""
    specification = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["nanogpt_model"] = module
    specification.loader.exec_module(module)
    layers, width, length, vocabulary, _ = SHAPES[shape]
    config = module.GPTConfig(
        block_size=length, vocab_size=vocabulary, n_layer=layers, n_head=_heads(shape), n_embd=width, dropout=0.0
    )
    model: nn.Module = module.GPT(config)
    return model


def gpt2(shape: str) -> nn.Module:
    """The other peer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, width, length, vocabulary, _ = SHAPES[shape]
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=length, n_embd=width, n_layer=layers, n_head=_heads(shape),
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: nn.Module = GPT2LMHeadModel(config)
    return model


def training(model: nn.Module, loss: Callable[[Any, Tensor], Tensor], shape: str, bfloat16: bool) -> Callable[[], int]:
    """Two steps of AdamW; how many tokens that was."""
    _, _, length, vocabulary, batch = SHAPES[shape]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)

    def work() -> int:
        for _ in range(2):
            rows = torch.randint(vocabulary, (batch, length + 1), generator=generator)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                value = loss(model, rows)
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return 2 * batch * length

    return work


def our_loss(model: Any, rows: Tensor) -> Tensor:
    """A mean over tokens, as the peers'."""
    return next_token_cross_entropy(model(rows[:, :-1]), rows) / rows[:, 1:].numel()


def nanogpt_loss(model: Any, rows: Tensor) -> Tensor:
    """What its model computes itself."""
    found: Tensor = model(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())[1]
    return found


def gpt2_loss(model: Any, rows: Tensor) -> Tensor:
    """Of the peer's logits."""
    logits = model(rows[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def print_training(arguments: Arguments, shape: str) -> None:
    """A table of one shape: each peer below our model with the same GELU."""
    pairs: list[tuple[str, str, Callable[[], nn.Module], Any]] = [
        ("gelu_tanh", "transformers", lambda: gpt2(shape), gpt2_loss)
    ]
    if (path := arguments.nanogpt) is not None:
        pairs.insert(0, ("gelu", "nanoGPT", lambda: nanogpt(path, shape), nanogpt_loss))
    contenders = []
    for bfloat16 in (False, True) if arguments.bfloat16 else (False,):
        suffix = ", bfloat16" if bfloat16 else ""
        for activation, name, make, loss in pairs:
            our = ours(shape, activation)  # type: ignore[arg-type]
            for label, model, its_loss in ((f"rllab, {activation}", our, our_loss), (name, make(), loss)):
                work = timed(training(model.train(), its_loss, shape, bfloat16))
                contenders.append(Contender(label + suffix, work, label.split(",")[0], arguments.threads))
    layers, width, length, vocabulary, batch = SHAPES[shape]
    operations = training_operations(ours(shape), 1, layers=layers, width=width, length=length)
    peaks = {
        bfloat16: peak_operations_per_second("cpu", torch.bfloat16 if bfloat16 else torch.float32, arguments.threads)
        for bfloat16 in (False, True)
    }
    table = Table("", "tokens/s, median", "min – max", "rllab is … times as fast", "of the peak")
    results = interleave(contenders, arguments.repetitions)
    for place, result in enumerate(results):
        low, high = min(result.rates), max(result.rates)
        ratio = f"{results[place - 1].median / result.median:.2f}" if place % 2 else ""
        peak = peaks[result.contender.name.endswith("bfloat16")]
        table.add_row(
            result.contender.name, f"{result.median:,.0f}", f"{low:,.0f} – {high:,.0f}", ratio,
            f"{result.median * operations / peak:.0%}",
        )  # fmt: skip
    table.title = (
        f"Training {shape}: {layers} layers × {width}, length {length}, vocabulary {vocabulary}, batch {batch}; "
        f"peak {peaks[False] / 1e9:.0f} GFLOP/s, bfloat16 {peaks[True] / 1e9:.0f}"
    )
    console.print(table)


def print_generation(arguments: Arguments) -> None:
    """A table of all batches."""
    from transformers import GenerationConfig

    model, peer = ours("M").eval(), gpt2("M").eval()
    table = Table(
        "rows", "rllab, tokens/s", "transformers, tokens/s", "ratio", title="Generation, shape M, 32 + 96 tokens"
    )
    for rows in arguments.batches:
        prompts = torch.randint(1024, (rows, PROMPT), generator=torch.Generator().manual_seed(0))
        config = DecodingConfig(maximum_new_tokens=NEW)
        settings = GenerationConfig(
            do_sample=True, max_new_tokens=NEW, min_new_tokens=NEW, pad_token_id=0, eos_token_id=None, top_k=0
        )

        def our_work(prompts: Tensor = prompts, config: DecodingConfig = config) -> int:
            return int(generate(model, prompts, config=config).tokens.numel())

        def peer_work(prompts: Tensor = prompts, settings: Any = settings) -> int:
            mask = torch.ones_like(prompts)
            with torch.inference_mode():
                found = peer.generate(prompts, attention_mask=mask, generation_config=settings)  # type: ignore[operator]
            return int(found[:, PROMPT:].numel())

        contenders = [
            Contender("rllab", timed(our_work), "rllab", arguments.threads),
            Contender("t", timed(peer_work), "transformers", arguments.threads),
        ]
        first, second = interleave(contenders, arguments.repetitions)
        table.add_row(
            str(rows), f"{first.median:,.0f}", f"{second.median:,.0f}", f"{first.median / second.median:.2f}"
        )  # fmt: skip
    console.print(table)


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine("transformers")
    torch.set_num_threads(arguments.threads)
    for shape in arguments.shapes:
        print_training(arguments, shape)
    if arguments.batches:
        print_generation(arguments)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
