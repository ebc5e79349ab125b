"""How the subcommands print measures of predictions."""

from collections.abc import Mapping

from preference.measures import PreferenceMeasures
from rllab.cli.console import number, print_table

COLUMNS = ("Comparisons", "Ties", "Accuracy", "95 % interval", "NLL", "Brier", "ECE")


def print_measures(measures: Mapping[str, PreferenceMeasures], first: str = "Comparisons of") -> None:
    """A row for each set of comparisons; `first` heads the column of their names."""
    print_table([first, *COLUMNS[1:]], (measure_row(name, measure) for name, measure in measures.items()), COLUMNS[1:])


def measure_row(name: str, measure: PreferenceMeasures) -> tuple[str, ...]:
    """A name with how many comparisons it stands for, and their measures, as `COLUMNS` has them."""
    return (
        f"{name} ({measure.count:,})",
        f"{measure.ties:,}",
        percent(measure.accuracy),
        "–" if not measure.count else f"[{percent(measure.accuracy_low)}, {percent(measure.accuracy_high)}]",
        number(measure.negative_log_likelihood),
        number(measure.brier),
        number(measure.calibration_error),
    )


def percent(value: float) -> str:
    """A share in percent; a dash where it is not defined."""
    return "–" if value != value else f"{value:.1%}"


LEGEND = (
    "Accuracy leaves ties out, its interval is Wilson's; NLL: negative log-likelihood in nats, 0.693 for a model that "
    "knows nothing; ECE: expected calibration error."
)
