"""The figures of the page about the answers: by person, by side, by day, and how far people agree."""

import math
from collections import Counter
from typing import Any

from preference.comparisons import Label
from preference.labelling.agreement import Agreement
from preference.labelling.tally import EDGES, Person, Tally, date_of
from preference.measures import wilson_interval


def statistics_of(tally: Tally, now: float) -> dict[str, Any]:
    """What the page of figures shows, as JSON; `now` in seconds since 1970."""
    with tally.lock:
        people = {name: person for name, person in sorted(tally.people.items()) if person.answers}
        choices: Counter[str] = sum((person.choices for person in people.values()), Counter())
        days: Counter[str] = sum((person.by_day for person in people.values()), Counter())
        pooled: Counter[tuple[Label, Label]] = Counter()
        agreements = []
        for (a, b), table in sorted(tally.between.items()):
            if a != b and +table:
                pooled += table
                agreements.append({"a": a, "b": b, **_agreement(Agreement.of(table))})
        return {
            "total": tally.total,
            "by_choice": {name: choices[name] for name in ("left", "right", "tie", "skip")},
            "by_label": {label.value: tally.labels[label] for label in Label},
            "by_day": [[day, days[day]] for day in sorted(days)],
            "median_seconds": tally.seconds[len(tally.seconds) // 2] if tally.seconds else None,
            "seconds_histogram": {"edges": list(EDGES), "counts": list(tally.histogram)},
            "people": [_person(tally, name, person, now) for name, person in people.items()],
            "agreements": agreements,
            "overall": _agreement(Agreement.of(pooled)),
        }


def _person(tally: Tally, name: str, person: Person, now: float) -> dict[str, Any]:
    left, right = person.choices["left"], person.choices["right"]
    itself = Agreement.of(tally.between.get((name, name), Counter()))
    return {
        "annotator": name,
        "answers": person.answers,
        "today": person.by_day[date_of(now)],
        "median_seconds": tally.median_seconds(name),
        "left_share": left / (left + right) if left + right else None,
        "left_interval": list(wilson_interval(left, left + right)) if left + right else None,
        "tie_rate": person.choices["tie"] / person.answers,
        "skip_rate": person.choices["skip"] / person.answers,
        "self_agreement": _number(itself.share),
        "self_pairs": itself.pairs,
    }


def _agreement(agreement: Agreement) -> dict[str, Any]:
    low, high = agreement.interval
    return {
        "pairs": agreement.pairs, "agreement": _number(agreement.share), "kappa": _number(agreement.kappa),
        "interval": None if math.isnan(low) else [low, high],
    }  # fmt: skip


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
