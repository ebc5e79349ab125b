"""Sentiment of IMDb's reviews with few and with all labels: does pre-training help, and against counted words?

    .venv/bin/python benchmarks/sentiment.py --ulmfit RUN --gpt RUN --bert RUN --out runs/sentiment
    .venv/bin/python benchmarks/sentiment.py --ulmfit RUN --out runs/sentiment --ablation --labels 100 1000

The runs are those of `rllab language pretrain` on `movie-reviews/imdb`: their part for test is the same as here, so
nothing tested was read in pre-training. Without pre-training a model has the same sizes and the same tokenizer. Each
cell's result is kept in `results.json` of the folder: the same command goes on where it stopped. TF-IDF with logistic
regression reads whole reviews, ULMFiT, GPT, BERT and ELMo as many tokens as `--longest` says.
"""

import json
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from common import console, print_machine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from envs.errors import RllabError
from language.models.documents import ReadingConfig
from language.models.folder import MODEL_FOLDER, load_model
from language.training.classification import ClassificationConfig
from language.training.classification_kinds import CLASSIFIERS
from language.training.classification_run import ClassificationTraining
from language.training.fine_tuning import FineTuningConfig
from language.training.labelled_texts import LabelledTexts, LabelledTextsConfig, few_of_each
from preference.measures import wilson_interval
from rllab.files import write_atomically

COUNTED = "TF-IDF"
EPOCHS = {
    "ulmfit": ((200, 30), (2_000, 12), (10**9, 4)), "gpt": ((200, 20), (2_000, 8), (10**9, 1)),
    "bert": ((200, 20), (2_000, 8), (10**9, 1)), "elmo": ((200, 20), (2_000, 8), (10**9, 1)),
}  # fmt: skip
"""By kind: up to so many documents, so many epochs; the best one by the part for validation is kept."""
RATE_FROM_SCRATCH = {"ulmfit": 1e-3}
"""By kind, where it is not that of fine-tuning: at 0.01 an AWD-LSTM that knows nothing stays at chance."""
ABLATION: dict[str, dict[str, Any]] = {
    "all three": {},
    "constant rate": {"schedule": "constant", "warmup": 0.0},
    "cosine rate": {"schedule": "cosine", "floor": 0.0},
    "one rate for all layers": {"layer_factor": 1.0},
    "all layers from the start": {"gradual_unfreezing": False},
    "none of the three": {
        "schedule": "constant", "warmup": 0.0, "layer_factor": 1.0, "gradual_unfreezing": False,
    },
}  # fmt: skip
"""What is changed of ULMFiT's fine-tuning."""


@dataclass(frozen=True)
class Arguments:
    """What to compare."""

    out: Path = Path("runs/sentiment")
    """Where results are kept, and runs while they last."""
    data: str = "movie-reviews/imdb"
    """Labelled texts by name."""
    ulmfit: Path | None = None
    """A pre-trained AWD-LSTM."""
    ulmfit_backward: Path | None = None
    """One that reads backwards, for another row and the average of both directions' accuracies."""
    gpt: Path | None = None
    """A pre-trained GPT."""
    bert: Path | None = None
    """A pre-trained BERT."""
    pooling: Literal["first", "mean"] = "first"
    """What BERT's linear layer sees: [CLS], or the mean of all tokens."""
    elmo: Path | None = None
    """A pre-trained ELMo."""
    labels: tuple[int, ...] = (100, 1_000, 0)
    """How many labelled reviews are learnt from; 0: all."""
    seeds: tuple[int, ...] = (0,)
    """Of the choice of reviews, of what is new in a model, and of batches."""
    only: tuple[str, ...] = ()
    """These rows only: tf-idf, ulmfit, ulmfit-backward, gpt, bert, elmo."""
    longest: int = 128
    """Tokens of a review that models read: a quarter from its beginning, the rest from its end."""
    validation: int = 300
    """Reviews that choose the best epoch (and the strength of regularisation)."""
    epochs: float = 0
    """In place of the numbers that go with how many labels there are."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the models' products; bfloat16 where the processor has units for it."""
    ablation: bool = False
    """ULMFiT with and without the parts of its fine-tuning, in place of the table of models."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    row: str
    """The name in the table."""
    kind: str
    """See `CLASSIFIERS`, or `tf-idf`."""
    run: Path | None
    """The pre-trained model, for its sizes and its tokenizer."""
    pretrained: bool
    """Whether its weights are taken."""
    labels: int
    seed: int
    changed: dict[str, Any] = field(default_factory=dict)
    """Of the fine-tuning."""

    def key(self, arguments: Arguments) -> str:
        """By which its result is found again."""
        epochs = f" epochs {arguments.epochs:g}" if arguments.epochs else ""
        cut = "" if self.kind == "tf-idf" else f" longest {arguments.longest}"
        model = "" if self.run is None else f" {self.run.resolve()}"
        precision = "" if self.kind == "tf-idf" or arguments.precision == "float32" else f" {arguments.precision}"
        return f"{arguments.data}: {self.row}, {self.labels} labels, seed {self.seed}{cut}{epochs}{precision}{model}"


def main(arguments: Arguments) -> None:
    """Train what is not trained yet, and print the table."""
    print_machine()
    path = arguments.out / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    cells = list(_ablation_cells(arguments) if arguments.ablation else _cells(arguments))
    for cell in cells:
        key = cell.key(arguments)
        if key in results:
            continue
        began = time.process_time()
        found = _counted(cell, arguments) if cell.kind == "tf-idf" else _trained(cell, arguments)
        results[key] = {**found, "seconds": round(time.process_time() - began, 1)}
        write_atomically(path, json.dumps(results, indent=1).encode())
        console.print(
            f"{key}: {found['right'] / found['tested']:.3f} in {results[key]['seconds']:.0f} CPU seconds",
            soft_wrap=True,
        )
    print(_table(cells, arguments, results))


def _cells(arguments: Arguments) -> Iterator[Cell]:
    runs = {
        "ulmfit": arguments.ulmfit, "ulmfit-backward": arguments.ulmfit_backward, "gpt": arguments.gpt,
        "bert": arguments.bert, "elmo": arguments.elmo,
    }  # fmt: skip
    names = {"ulmfit": "ULMFiT", "ulmfit-backward": "ULMFiT, backward", "gpt": "GPT", "bert": "BERT", "elmo": "ELMo"}
    if arguments.pooling == "mean":
        names["bert"] = "BERT, mean of tokens"
    for seed in arguments.seeds:
        for labels in sorted(arguments.labels, key=lambda count: count or 10**9):
            if not arguments.only or "tf-idf" in arguments.only:
                yield Cell(COUNTED, "tf-idf", None, False, labels, seed)
            for name, run in runs.items():
                if run is None or (arguments.only and name not in arguments.only):
                    continue
                for pretrained in (False, True):
                    row = f"{names[name]}{', pre-trained' if pretrained else ''}"
                    yield Cell(row, name.removesuffix("-backward"), run, pretrained, labels, seed)


def _ablation_cells(arguments: Arguments) -> Iterator[Cell]:
    if arguments.ulmfit is None:
        raise RllabError("--ablation needs a pre-trained AWD-LSTM: --ulmfit RUN.")
    for seed in arguments.seeds:
        for labels in arguments.labels:
            for name, changed in ABLATION.items():
                yield Cell(f"ULMFiT, {name}", "ulmfit", arguments.ulmfit, True, labels, seed, changed)


def _trained(cell: Cell, arguments: Arguments) -> dict[str, Any]:
    kind = CLASSIFIERS[cell.kind]
    assert cell.run is not None
    config = load_model(cell.run)[0].config
    model = replace(kind.with_pretrained(kind.model, config), reading=ReadingConfig(arguments.longest, "both"))
    if cell.kind == "bert":
        model = replace(model, pooling=arguments.pooling)
    folder = cell.run / MODEL_FOLDER if (cell.run / MODEL_FOLDER).is_dir() else cell.run
    tokenizer = None if cell.pretrained else str(folder / "tokenizer")
    recipe = ClassificationTraining(
        model_kind=kind.model_kind, model=model,
        texts=LabelledTextsConfig(
            data=arguments.data, labels=cell.labels, validation=arguments.validation, tokenizer=tokenizer
        ),
        batches=ClassificationConfig(16 if 0 < cell.labels <= 200 else 32),
        fine_tuning=_fine_tuning(cell, kind.fine_tuning, arguments),
        initial=str(cell.run) if cell.pretrained else None,
    )  # fmt: skip
    out = arguments.out / "run"
    run = recipe.run(out, overwrite=out.exists(), quiet=True)
    shutil.rmtree(out)
    return {"right": run.right, "tested": run.tested, "documents": run.documents}


def _fine_tuning(cell: Cell, usual: FineTuningConfig, arguments: Arguments) -> FineTuningConfig:
    epochs = arguments.epochs or next(count for most, count in EPOCHS[cell.kind] if (cell.labels or 10**9) <= most)
    changed = {
        "epochs": epochs, "seed": cell.seed, "tensorboard": False, "precision": arguments.precision, **cell.changed,
    }  # fmt: skip
    if not cell.pretrained:
        changed["gradual_unfreezing"] = False  # layers that know nothing yet are of no use while they are frozen
        changed["layer_factor"] = 1.0
        changed["learning_rate"] = RATE_FROM_SCRATCH.get(cell.kind, usual.learning_rate)
    return replace(usual, **changed)


def _counted(cell: Cell, arguments: Arguments) -> dict[str, Any]:
    """Words and pairs of words, weighed; the strength of regularisation that is best in validation."""
    config = LabelledTextsConfig(data=arguments.data, labels=cell.labels, validation=arguments.validation)
    parts = config.parts()
    training = few_of_each(parts["training"], cell.labels, cell.seed) if cell.labels else parts["training"]
    counter = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    vectors = counter.fit_transform([_text(each) for each in training])
    validation, test = (counter.transform([_text(each) for each in parts[name]]) for name in ("validation", "test"))
    labels = {name: [each.label for each in parts[name]] for name in ("validation", "test")}
    best: tuple[float, Any] = (-1.0, None)
    for strength in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
        model = LogisticRegression(C=strength, max_iter=1_000).fit(vectors, [each.label for each in training])
        best = max(best, (float(model.score(validation, labels["validation"])), model), key=lambda found: found[0])
    right = round(best[1].score(test, labels["test"]) * len(labels["test"]))
    return {"right": right, "tested": len(labels["test"]), "documents": len(training)}


def _text(labelled: LabelledTexts) -> str:
    return labelled.texts[0]


def _table(cells: list[Cell], arguments: Arguments, results: dict[str, Any]) -> str:
    """Markdown: accuracy in the part for test, its 95 % interval (of several seeds the mean, the least, the most)."""
    labels = list(dict.fromkeys(cell.labels for cell in cells))
    rows = dict.fromkeys(cell.row for cell in cells)
    heads = [f"{count:,} labels" if count else "all labels" for count in labels]
    lines = [f"| | {' | '.join(heads)} | CPU seconds |", f"|---|{'---|' * (len(heads) + 1)}"]
    for row in rows:
        shown, seconds = [], []
        for count in labels:
            found = [results[c.key(arguments)] for c in cells if (c.row, c.labels) == (row, count)]
            seconds.append("/".join(f"{each['seconds']:.0f}" for each in found[:1]))
            shares = [each["right"] / each["tested"] for each in found]
            if not shares:
                shown.append("–")
            elif len(shares) == 1:
                low, high = wilson_interval(found[0]["right"], found[0]["tested"])
                shown.append(f"{shares[0]:.3f} [{low:.3f}, {high:.3f}]")
            else:
                shown.append(f"{statistics.mean(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")
        lines.append(f"| {row} | {' | '.join(shown)} | {', '.join(seconds)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main(tyro.cli(Arguments, description=__doc__))
    except RllabError as error:
        raise SystemExit(f"{error}") from None
