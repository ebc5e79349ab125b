"""The direction of imports, envs ← rllab ← preference ← language, and how little `import rllab` brings in."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "envs": {"rllab", "preference", "language", "torch"},
    "rllab": {"preference", "language"},
    "preference": {"language"},
}


def imports_of(source: str) -> Iterator[str]:
    """The top-level names of all modules that a source file imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_package_imports_one_that_stands_on_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files or package == "preference"
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imports_of(file.read_text("utf-8"))
        if name in FORBIDDEN[package]
    ]
    assert wrong == []


def test_the_reader_of_imports_finds_them_in_every_form() -> None:
    source = "import a.b as c\ndef f():\n    from d.e import g\n    importlib.import_module('h.i')\nfrom . import k\n"
    assert list(imports_of(source)) == ["a", "d", "h"]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("rllab", {"torch", "gymnasium", "numpy", "tensorboard"}), ("rllab.runs", {"torch", "gymnasium", "tensorboard"}),
     ("envs.make", {"torch"})],
)  # fmt: skip
def test_a_light_module_brings_in_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = f"import {module}, sys; print(sorted({heavy!r} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"
