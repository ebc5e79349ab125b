"""Look into a model: its sizes, what it looks at, which tokens its experts get."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import nn

from envs.errors import RllabError
from language.data.blocks import TokenFile
from language.models.attention_plot import plot_attention
from language.models.expert_report import characteristic_tokens
from language.models.folder import kind_of, load_model
from language.models.mixture_of_experts import MixtureOfExperts
from language.models.papers import PAPERS, paper_model
from language.models.sizes import parameter_count, parts
from language.tasks.attention import attention_of_text
from language.tokenizers.tokenizer import Tokenizer
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import print_facts, print_table
from rllab.runs import Run, is_run

_BYTES = 4
"""Of a number in single precision."""
_ROWS, _LENGTH = 64, 128
"""Of the held-out text that experts are looked at with, at most."""


@dataclass(frozen=True)
class InspectArguments:
    """Look into a model of a paper, which is made without memory for its weights, or into a trained one."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A paper's model by name, such as gpt-1; or a run, or a model's folder (./gpt-1, if it is so named)."""
    json: Flag = False
    """Print one JSON object."""
    text: str | None = None
    """What a trained model reads, for --attention and for the table of experts."""
    target: str | None = None
    """For a Transformer the translation of the text; for BERT a second segment."""
    attention: Path | None = None
    """Draw where each head looks in the text; the suffix is the format, such as .png or .svg."""
    layers: tuple[int, ...] = ()
    """Which layers to draw, counted from 0; all by default."""
    heads: tuple[int, ...] = ()
    """Which heads to draw, counted from 0; all by default."""
    device: str = "cpu"
    """Where a trained model computes: cpu, cuda, cuda:1, …"""


def command(argv: Sequence[str]) -> int:
    """`rllab language inspect MODEL …`."""
    arguments: InspectArguments = parse(
        InspectArguments, argv, "language inspect",
        description=f"{__doc__}\n\nThe papers' models: {', '.join(PAPERS)}.",
    )  # fmt: skip
    if Path(arguments.model).exists() and arguments.model not in PAPERS:
        return _inspect_folder(Path(arguments.model), arguments)
    if arguments.text is not None or arguments.attention is not None:
        raise RllabError(f"{arguments.model} has no weights to read a text with; give a run or a model's folder.")
    if arguments.model not in PAPERS and ("/" in arguments.model or "." in arguments.model):
        raise RllabError(f"There is no {arguments.model}; give a run, a model's folder, or a paper's model by name.")
    _show(_of_paper(arguments.model), arguments.json)
    return 0


def _of_paper(name: str) -> dict[str, Any]:
    paper = paper_model(name)
    facts = {"model": name, "source": paper.source, **_sizes(paper.build())}
    whole = paper.build_with_heads()
    if whole is not None:
        facts["parameters_with_heads"] = parameter_count(whole)
    return facts | {"configuration": asdict(paper.config)}


def _sizes(model: nn.Module) -> dict[str, Any]:
    count = parameter_count(model)
    found = {name: asdict(part) for name, part in parts(model).items()}
    return {"class": type(model).__name__, "parameters": count, "bytes_fp32": _BYTES * count, "parts": found}


def _inspect_folder(folder: Path, arguments: InspectArguments) -> int:
    model, tokenizer = load_model(folder, arguments.device)
    config: Any = model.config
    facts = {
        "model": str(folder), "kind": kind_of(model), **_sizes(model), "configuration": asdict(config),
        "tokenizer": {"kind": tokenizer.kind, "tokens": len(tokenizer), "special": list(tokenizer.special.tokens())},
        **_training(folder),
    }  # fmt: skip
    if arguments.attention is not None and arguments.text is None:
        raise RllabError("Attention is looked at in a text; give one with --text.")
    pictures = [] if arguments.attention is None else _draw(model, tokenizer, arguments)
    experts = _experts(model, tokenizer, folder, arguments)
    if experts:
        facts["experts"] = experts
    if pictures:
        facts["pictures"] = pictures
    _show(facts, arguments.json)
    return 0


def _training(folder: Path) -> dict[str, Any]:
    """What a run's folder says of its training: steps, and the last evaluation."""
    if not is_run(folder):
        return {}
    rows = Run.open(folder).read_metrics()
    if not rows:
        return {}
    evaluated = next((row for row in reversed(rows) if any(name.startswith("evaluation/") for name in row)), {})
    last = {name.removeprefix("evaluation/"): value for name, value in evaluated.items() if "evaluation/" in name}
    found = {"steps": rows[-1]["steps"], "seconds": rows[-1].get("seconds")}
    return {"training": found | ({"last_evaluation": {"steps": evaluated["steps"], **last}} if last else {})}


def _draw(model: nn.Module, tokenizer: Tokenizer, arguments: InspectArguments) -> list[str]:
    """A picture for each kind of attention; the paths."""
    assert arguments.attention is not None
    assert arguments.text is not None
    out = arguments.attention
    written = []
    for number, found in enumerate(attention_of_text(model, tokenizer, arguments.text, arguments.target)):
        suffix = f"-{found.kind.replace(' ', '-')}{out.suffix}"
        path = out if number == 0 else out.with_name(out.stem + suffix)
        written.append(str(plot_attention(
            found.weights, found.queries, found.keys, path, title=f"{Path(arguments.model).name}: {found.kind}",
            layers=arguments.layers, heads=arguments.heads,
        )))  # fmt: skip
    return written


def _experts(
    model: nn.Module, tokenizer: Tokenizer, folder: Path, arguments: InspectArguments
) -> list[dict[str, Any]]:  # fmt: skip
    """Of each expert its share and what it gets more often than others, of the given text or the run's held-out one."""
    layers = sum(isinstance(module, MixtureOfExperts) for module in model.modules())
    if not layers:
        return []
    if arguments.text is not None:
        rows = torch.tensor([tokenizer.ids(arguments.text)])
    else:
        path = folder / "tokens" / "validation.npy"
        if not path.is_file():
            return []
        length = min(_LENGTH, getattr(model, "context", None) or _LENGTH)
        rows = torch.from_numpy(TokenFile.open(path).blocks(length)[:_ROWS].astype("int64"))
    least = 1 if rows.numel() < 1000 else 5
    return [
        {
            "layer": layer, "expert": entry.expert, "share": entry.share,
            "tokens": [tokenizer.decode([found.token], keep_special=True) for found in entry.tokens],
        }
        for layer in range(layers)
        for entry in characteristic_tokens(
            model, [(rows.to(arguments.device), None)], layer=layer, top=8, least=least
        )
    ]  # fmt: skip


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    count = facts["parameters"]
    lines = [
        ("Model", facts["model"]), ("Class", facts["class"]),
        *((name.capitalize(), facts[name]) for name in ("kind", "source") if name in facts),
        ("Parameters", f"{count:,}"),
    ]  # fmt: skip
    if "parameters_with_heads" in facts:
        lines.append(("With heads", f"{facts['parameters_with_heads']:,}"))
    lines.append(("Memory", f"{_readable_bytes(facts['bytes_fp32'])} in single precision"))
    if "tokenizer" in facts:
        tokenizer = facts["tokenizer"]
        special = f", with {' '.join(tokenizer['special'])}" if tokenizer["special"] else ""
        lines.append(("Tokenizer", f"{tokenizer['kind']}, {tokenizer['tokens']:,} tokens{special}"))
    if "training" in facts:
        lines += _training_lines(facts["training"])
    lines += [("Picture", path) for path in facts.get("pictures", ())]
    print_facts(lines)
    rows = [
        (name, "" if part["layers"] == 1 else str(part["layers"]), f"{part['parameters']:,}",
         f"{part['parameters'] / count:.1%}")
        for name, part in facts["parts"].items()
    ]  # fmt: skip
    print_table(("Part", "Layers", "Parameters", "Share"), rows, right=("Layers", "Parameters", "Share"))
    print_table(
        ("Configuration", "Value"), [(name, _readable(value)) for name, value in facts["configuration"].items()]
    )  # fmt: skip
    if "experts" in facts:
        print_table(
            ("Layer", "Expert", "Share", "Gets more often than others do"),
            [
                (str(row["layer"]), str(row["expert"]), f"{row['share']:.1%}", "  ".join(map(_visible, row["tokens"])))
                for row in facts["experts"]
            ],
            right=("Layer", "Expert", "Share"),
        )


def _training_lines(training: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("Trained", f"{training['steps']:,.0f} steps")]
    if "last_evaluation" in training:
        numbers = dict(training["last_evaluation"])
        steps = numbers.pop("steps")
        shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        lines.append(("Evaluation", f"{shown} (after {steps:,.0f} steps)"))
    return lines


def _readable(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _visible(token: str) -> str:
    """A token with its spaces shown, as one word of a list."""
    return token.replace(" ", "␣").replace("\n", "⏎")


def _readable_bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError
