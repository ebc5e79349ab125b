"""The trunk of the command: help, versions, exit codes, warnings; nothing heavy before it is needed."""

import subprocess
import sys
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import rllab
from envs.errors import RllabError
from rllab.checkpoints import CheckpointWarning
from rllab.cli import main as trunk
from rllab.cli.main import main
from rllab.cli.subcommands import summary


def command_raising(error: BaseException) -> Any:
    """A subcommand, as an entry point gives it, that ends with `error`."""

    def command(argv: Sequence[str]) -> int:
        raise error

    return SimpleNamespace(load=lambda: command)


@pytest.fixture
def only_command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a subcommand `act` in place of all others."""
    return lambda entry: monkeypatch.setattr(trunk, "commands", lambda: {"act": entry})


def test_help_lists_every_command_with_the_first_line_of_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name in ("demo", "train", "resume", "evaluate", "watch", "compare", "envs"):
        assert f" {name} " in printed
    assert "train Train an agent on an environment: one run, or one for each of several seeds." in printed


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from rllab.cli.main import main; main(['--help']); "
        "print(*(name for name in ('torch', 'gymnasium', 'numpy', 'rich', 'tyro', 'matplotlib') "
        "if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert "usage: rllab" in done.stdout


def test_a_broken_plugin_does_not_cost_the_others_their_help() -> None:
    assert summary("no_such_package.module") == ""
    assert summary("json.decoder") == "Implementation of JSONDecoder"


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rllab {rllab.__version__}\n"


def test_no_command_is_a_usage_error_that_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: rllab" in capsys.readouterr().err


def test_unknown_command_is_answered_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "ppo"]) == 2
    assert capsys.readouterr().err == "rllab: error: there is no command 'trian'; did you mean train?\n"


def test_option_before_the_command_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "5"]) == 2
    assert "the command comes first" in capsys.readouterr().err


def test_bad_input_is_one_sentence_and_code_2(only_command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    only_command(command_raising(RllabError("the disk is full")))
    assert main(["act"]) == 2
    assert capsys.readouterr().err == "rllab: error: the disk is full\n"


def test_keyboard_interrupt_is_quiet_and_code_130(only_command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    only_command(command_raising(KeyboardInterrupt()))
    assert main(["act"]) == 130
    assert capsys.readouterr().err == ""


def test_interrupted_training_of_any_command_gives_128_plus_the_signal(only_command: Any) -> None:
    only_command(command_raising(rllab.Interrupted(15)))
    assert main(["act"]) == 143


def test_unexpected_exceptions_keep_their_traceback(only_command: Any) -> None:
    only_command(command_raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["act"])


def test_own_warnings_are_plain_sentences_and_others_are_not(
    only_command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(argv: Sequence[str]) -> int:
        warnings.warn("Step 5 is damaged.", CheckpointWarning, stacklevel=1)
        warnings.warn("something of others", UserWarning, stacklevel=1)
        return 0

    only_command(SimpleNamespace(load=lambda: command))
    # pytest records warnings by a `showwarning` of its own: put Python's back below the command's.
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, category, filename, lineno, file=None, line=None: print(
            warnings.formatwarning(message, category, filename, lineno), file=sys.stderr
        )
        assert main(["act"]) == 0
    printed = capsys.readouterr().err
    assert "rllab: warning: Step 5 is damaged.\n" in printed
    assert "UserWarning: something of others" in printed


def test_a_reader_that_stops_early_is_no_error() -> None:
    script = f"{sys.executable} -c 'from rllab.cli.main import main; raise SystemExit(main([\"--help\"]))' | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
