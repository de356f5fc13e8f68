"""The tutorial: its files are those that run, its code and its commands do what it says."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import paramserver
from paramserver.consensus import RULES
from paramserver.errors import MissingMethod
from tests.cluster.helpers import processes

ROOT = Path(paramserver.__file__).parents[1]
ROOM = ROOT / "paramserver" / "examples"
TEXT = (ROOM / "README.md").read_text()
RULE = "hessian_average.py"
FILES = (RULE, "straggler.py", "expectile.py", "berhu.py")


class Block(NamedTuple):
    """A piece of code, what a comment says of it, and the indented lines that follow it."""

    how: str
    language: str
    code: str
    shown: str


_BLOCK = r"(?:<!-- ([\w: .]+) -->\n)?```(\w+)\n(.*?)```\n(?:\n((?:    [^\n]*\n)+))?"
BLOCKS = [Block(*found) for found in re.findall(_BLOCK, TEXT, re.DOTALL)]
CODE = [block for block in BLOCKS if block.language == "python" and not block.how.startswith("file: ")]
COMMANDS = re.findall(r"^    (python -m .+|paramserver .+)$", TEXT, re.MULTILINE)
(PROJECT,) = (block.code for block in BLOCKS if block.language == "toml")
(JOB,) = (block.code for block in BLOCKS if block.language == "yaml")
(DATA,) = (block.code for block in CODE if "data.csv" in block.code)


def python(*words: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, str(ROOT)]))}
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=cwd, env=env)


def words_of(text: str) -> str:
    """Without line breaks and indentation, with … for numbers that differ between machines."""
    return re.escape(" ".join(text.split())).replace("…", ".*")


# -- files -----------------------------------------------------------------------------------------


def test_the_files_shown_are_the_files_that_run() -> None:
    shown = {block.how.removeprefix("file: "): block.code for block in BLOCKS if block.how.startswith("file: ")}
    assert shown.keys() == {*FILES, "pyproject.toml"}
    for name in FILES:
        assert shown[name] == (ROOM / name).read_text(), name


def test_a_rule_is_short() -> None:
    assert len((ROOM / RULE).read_text().splitlines()) <= 60


def test_none_imports_dask() -> None:
    modules = [f"paramserver.examples.{name.removesuffix('.py')}" for name in FILES]
    look = "print([m for m in sys.modules if m.split('.')[0] in ('dask', 'distributed')])"
    out = python("-c", f"import sys, {', '.join(modules)}; {look}", cwd=ROOT)
    assert (out.stdout, out.stderr) == ("[]\n", "")
    assert not re.search(r"^\s*(from|import) (dask|distributed)", (ROOM / RULE).read_text(), re.MULTILINE)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOM / target).exists(), target


# -- code ------------------------------------------------------------------------------------------

HERE = [block for block in CODE if not block.how.startswith("after: ") and block.code != DATA]
(NOTEBOOK,) = (block for block in CODE if block.how.startswith("after: "))


@pytest.mark.parametrize("block", HERE, ids=lambda block: block.code.strip().splitlines()[-1][:40])
def test_code(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    if block.how == "raises":
        with pytest.raises((AssertionError, MissingMethod)) as caught:
            exec(compile(block.code, "snippet", "exec"), {"__name__": "__main__"})
        said = f"{caught.type.__name__}: {caught.value}"
        assert re.fullmatch(words_of(block.shown), " ".join(said.split())), said
    else:
        exec(compile(block.code, "snippet", "exec"), {"__name__": "__main__"})
        assert capsys.readouterr().out


def test_a_rule_of_a_script_travels(tmp_path: Path) -> None:
    """As of a notebook: the workers have no module that it could be imported from."""
    (name,) = re.findall(r"after: (.+)", NOTEBOOK.how)
    before, _, _ = (ROOM / name).read_text().partition('if __name__ == "__main__":')
    (tmp_path / "cells.py").write_text(before + NOTEBOOK.code)
    out = python("cells.py", cwd=tmp_path)
    assert out.returncode == 0, out.stderr[-2000:]
    assert "[duality gap], converged=True" in out.stdout


# -- commands --------------------------------------------------------------------------------------


def test_there_is_enough_to_run() -> None:
    assert len(CODE) >= 8
    assert {command.split()[0] for command in COMMANDS} == {"python", "paramserver"}
    assert len(COMMANDS) == 5


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("python")])
def test_example(command: str, capsys: Any) -> None:
    """What it prints is what is shown: the words of it, for numbers may differ a little."""
    *_, name = command.rpartition("paramserver.examples.")
    runpy.run_path(str(ROOM / f"{name}.py"), run_name="__main__")
    printed, after = capsys.readouterr().out, TEXT.partition(f"    {command}\n")[2]
    (shown, *_) = re.findall(r"(?:^    .+\n)+", after, re.MULTILINE)
    assert [line.split()[0] for line in printed.splitlines()] == [line.split()[0] for line in shown.splitlines()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial's package, installed by pip from a wheel of what its pyproject.toml says."""
    folder = tmp_path_factory.mktemp("installed")
    name, version = (re.search(rf'^{key} = "(.+)"$', PROJECT, re.MULTILINE)[1] for key in ("name", "version"))  # type: ignore[index]
    ((group, points),) = re.findall(r'\[project\.entry-points\."(.+)"\]\n((?:.+\n)+)', PROJECT)
    wheel = f"{name.replace('-', '_')}-{version}"
    info = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": f"[{group}]\n{points.replace(chr(34), '')}",
    }
    files = {RULE: (ROOM / RULE).read_text(), **{f"{wheel}.dist-info/{k}": text for k, text in info.items()}}
    files[f"{wheel}.dist-info/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{wheel}.dist-info/RECORD"])
    with zipfile.ZipFile(folder / f"{wheel}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", str(folder / "site")]
    out = python("-m", "pip", "install", *options, f"{wheel}-py3-none-any.whl", cwd=folder)
    assert out.returncode == 0, out.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def cluster_of_it(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A scheduler and a worker where the package is installed; the folder has the data and the job file too."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "job.yaml").write_text(JOB)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(DATA, {})
    env = {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    with processes(folder, env) as own:
        own.add("a", env=env)
        (folder / "scheduler.json").write_bytes(Path(own.file).read_bytes())
        yield folder


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("paramserver")])
def test_by_name_from_the_command_line(command: str, installed: Path, cluster_of_it: Path) -> None:
    words = [*shlex.split(command), "--scheduler-file", "scheduler.json", "--json"]
    out = python("-m", *words, cwd=cluster_of_it, path=str(installed))
    assert out.returncode == 0, out.stderr
    batch = 50 if "job.yaml" in command else 100
    assert f'"consensus": "HessianAverage(min_fresh=1, max_staleness=None, batch={batch})"' in out.stdout
    assert '"converged": true' in out.stdout


# -- which rule when -------------------------------------------------------------------------------

WHICH = (ROOT / "paramserver" / "consensus" / "README.md").read_text()
ROWS = {
    cells[0].strip("`"): cells for line in re.findall(r"^\| (`.+) \|$", WHICH, re.M) if (cells := line.split(" | "))
}


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"auto"}))
def test_the_page_has_every_rule_as_it_is(name: str) -> None:
    rule, row = RULES[name](), ROWS[name]
    assert row[1] == f"`{type(rule).__name__}`"
    assert set(rule.needs) <= set(re.findall(r"`(\w+)`", row[2])) <= set(rule.needs) | {"prox", "knows"}
    assert row[5].startswith("exact" if rule.exact else "floor")
    shapes = [shape for field, shape in rule.shapes.items() if field not in rule.optional - {"e"}]
    always = {"p": shapes.count(("p",)), "k": shapes.count(("*",)), "1": shapes.count(())}
    terms = [f"{'' if n == 1 and unit != '1' else n}{'' if unit == '1' else unit}" for unit, n in always.items() if n]
    assert re.split(r"[,;]", row[4])[0] == " + ".join(terms)


def test_the_page_has_one_place_for_numbers() -> None:
    (numbers,) = re.findall(r"<!-- numbers -->\n(.*?)<!-- /numbers -->", WHICH, re.DOTALL)
    assert "tests/benchmarks/RESULTS.md" in numbers
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", WHICH):
        assert (ROOT / "paramserver" / "consensus" / target).exists(), target
