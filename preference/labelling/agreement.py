"""How far answers agree: share of equal ones, and Cohen's kappa, between two people or a person and themselves."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from preference.comparisons import Label
from preference.measures import wilson_interval

CATEGORIES = (Label.FIRST, Label.SECOND, Label.TIE)
"""A skip says nothing that could agree."""
Table = Mapping[tuple[Label, Label], int]
"""How often one said the first label and the other the second of the same pair."""


@dataclass(frozen=True)
class Agreement:
    """Of two raters over the pairs that both have judged."""

    pairs: int
    share: float
    """Of equal answers; NaN without any."""
    kappa: float
    """Cohen 1960, "A coefficient of agreement for nominal scales": (p₀ − pₑ)/(1 − pₑ), where pₑ is the agreement that
    two raters with these habits reach by chance. NaN where chance alone explains everything (pₑ = 1)."""
    interval: tuple[float, float]
    """95 % interval of kappa: Wilson's interval of p₀ put into its formula, with pₑ taken as known, as Cohen's own
    large-sample error does; that one is 0 where all answers agree, however few."""

    @staticmethod
    def of(table: Table) -> "Agreement":
        """From a table of counts."""
        count = sum(table.get((a, b), 0) for a in CATEGORIES for b in CATEGORIES)
        if not count:
            return Agreement(0, math.nan, math.nan, (math.nan, math.nan))
        share = sum(table.get((a, a), 0) for a in CATEGORIES) / count
        rows, columns = Counter[Label](), Counter[Label]()
        for (a, b), number in table.items():
            if a in CATEGORIES and b in CATEGORIES:
                rows[a] += number
                columns[b] += number
        chance = sum(rows[a] * columns[a] for a in CATEGORIES) / count**2
        if chance >= 1:
            return Agreement(count, share, math.nan, (math.nan, math.nan))
        kappa = (share - chance) / (1 - chance)
        low, high = ((bound - chance) / (1 - chance) for bound in wilson_interval(share * count, count))
        return Agreement(count, share, kappa, (low, high))
