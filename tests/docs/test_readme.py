"""Every Python block of the README runs, and so do its shell commands' options."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.strip() for line in README.splitlines() if re.match(r"    paramserver \w+ ", line)]
(JOB,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_python_block(code: str, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(code)
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert out.returncode == 0, out.stderr[-2000:]
    assert out.stdout


def test_there_are_blocks_and_commands() -> None:
    assert len(BLOCKS) >= 2
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command: str, tmp_path: Path) -> None:
    """No scheduler is there, nor a batch system: the options exist, and the error is clear and quick."""
    job = JOB.replace("data/*.parquet", "flights").replace("y: late\n", "").replace("/shared/", f"{tmp_path}/")
    (tmp_path / "job.yaml").write_text(job)
    words = shlex.split(command.replace("tcp://host:8786", "tcp://127.0.0.1:1"), comments=True)
    out = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "Traceback" not in out.stderr
    if "--dry-run" in words:
        assert (out.returncode, out.stdout.startswith("#!")) == (0, True), out.stderr
    elif "--scheduler" in words:
        assert (out.returncode, "no scheduler answers at tcp://127.0.0.1:1 within 5 s" in out.stderr) == (1, True)
    else:
        said = "cannot be read" if "--scheduler-file" in words else "sbatch is not on this machine's PATH"
        assert (out.returncode, said in out.stderr) == (2, True), out.stderr


def test_layout_names_files_that_exist() -> None:
    layout = README.partition("## Layout")[2].partition("## ")[0]
    for name in re.findall(r"\b[a-z_]+\.py\b", layout):
        assert list(ROOT.glob(f"paramserver/**/{name}")) or list(ROOT.glob(f"workers/**/{name}")), name
