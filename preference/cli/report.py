"""Write one HTML page about a run: curves, what was asked, how well it is predicted, best and worst clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rllab.cli.arguments import RunPath, parse
from rllab.cli.console import print_facts


@dataclass(frozen=True)
class ReportArguments:
    """Write one HTML page about a run of `preference learn` or of `language tune`; it may still be training."""

    run: RunPath
    """The run's folder."""
    output: Path | None = None
    """The page; by default report.html in the run's folder. It loads nothing, and can be sent as it is."""


def command(argv: Sequence[str]) -> int:
    """`rllab preference report RUN`."""
    arguments: ReportArguments = parse(ReportArguments, argv, "preference report")
    from preference.report import write_report

    path = write_report(arguments.run, arguments.output)
    print_facts([("Report", f"{path} ({path.stat().st_size / 1024:.0f} KiB)")])
    return 0
