"""Go on with an interrupted run, or with each unfinished one of a folder that `--seeds` made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.errors import RllabError
from rllab.cli.arguments import Flag, RunPath, parse
from rllab.cli.console import print_facts, quoted
from rllab.cli.processes import Job, cores, run_jobs
from rllab.cli.report import report_interruption, report_run, report_runs
from rllab.experiment import resume
from rllab.interrupt import Interrupted
from rllab.runs import Run, find_runs, is_run


@dataclass(frozen=True)
class ResumeArguments:
    """Go on with an interrupted run from its latest good checkpoint.

    A folder that `rllab train --seeds` made may be named too: each unfinished run in it goes on.
    """

    run: RunPath
    """The run's folder, or a folder of runs."""
    steps: int | None = None
    """Train up to so many steps in all, rather than to those the run was started with."""
    jobs: int = 0
    """With several runs: how many of them at once; 0: one for each CPU core, or one by one on another device."""
    quiet: Flag = False
    """Print nothing but warnings and errors."""


def command(argv: Sequence[str]) -> int:
    """`rllab resume RUN`."""
    arguments: ResumeArguments = parse(ResumeArguments, argv, "resume")
    paths = find_runs([arguments.run])
    unfinished = [path for path in paths if _is_unfinished(path, arguments)]
    if not unfinished:
        done = min(map(_steps_done, paths))
        if arguments.steps is not None:
            raise RllabError(f"{arguments.run} has trained {done:,} steps already; give --steps a larger number")
        further = f"rllab resume {quoted(arguments.run)} --steps {2 * done}"
        print(f"{arguments.run} has trained all its steps; to train further: {further}")
        return 0
    if not is_run(arguments.run):
        return _resume_several(paths, unfinished, arguments)
    try:
        run = resume(arguments.run, steps=arguments.steps, quiet=arguments.quiet)
    except Interrupted as error:
        return report_interruption(error, arguments.run)
    if not arguments.quiet:
        report_run(run.path, run.stop_reason)
        if facts := getattr(run, "facts", None):  # of one that is judged once more at the end, which is kept nowhere
            print_facts(facts)
    return 0


def _resume_several(paths: Sequence[Path], unfinished: Sequence[Path], arguments: ResumeArguments) -> int:
    if not arguments.quiet:
        print(f"{len(unfinished)} of {len(paths)} runs in {arguments.run} are unfinished", flush=True)
    steps = [] if arguments.steps is None else ["--steps", str(arguments.steps)]
    jobs = [Job(path, ["resume", str(path), *steps, "--quiet"]) for path in unfinished]
    on_cpu = all(Run.open(path).config["device"] == "cpu" for path in unfinished)
    total = sum(_steps_wanted(path, arguments) for path in unfinished)
    ending = run_jobs(jobs, arguments.jobs or (cores() if on_cpu else 1), total, quiet=arguments.quiet)
    if ending.interruption is not None:
        return report_interruption(ending.interruption, arguments.run)
    if not arguments.quiet:
        report_runs(arguments.run, [path for path in paths if ending.codes.get(path, 0) == 0])
    return ending.exit_code


def _is_unfinished(path: Path, arguments: ResumeArguments) -> bool:
    if _steps_done(path) >= _steps_wanted(path, arguments):
        return False
    return arguments.steps is not None or Run.open(path).stop_reason() is None


def _steps_done(path: Path) -> int:
    return Run.open(path).checkpoints.latest() or 0


def _steps_wanted(path: Path, arguments: ResumeArguments) -> int:
    steps: int = Run.open(path).config["loop"]["steps"]
    return steps if arguments.steps is None else arguments.steps
