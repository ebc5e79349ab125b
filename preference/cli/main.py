"""Learn what people want from comparisons of short clips: rewards, their measures, and reports."""

from rllab.cli.subcommands import Subcommands

SUBCOMMANDS = {
    "learn": "preference.cli.learn",
    "label": "preference.cli.label",
    "fit": "preference.cli.fit",
    "evaluate": "preference.cli.evaluate",
    "report": "preference.cli.report",
    "rate": "preference.cli.rate",
    "export": "preference.cli.export",
    "import": "preference.cli.import_",
}
command = Subcommands("preference", SUBCOMMANDS, __doc__, "rllab preference learn Pendulum-v1 --labels 200")
