"""A whole cluster inside one allocation: deploy/slurm/allocation.sbatch as it is, and in the clear."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from .slurm import DEPLOY, Slurm

pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("no_job_left")]

TLS = ("security=True", "require_tls=True, ")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files, where they may write, and Python as in a virtual environment."""
    for name in ("allocation.sbatch", "allocation.py"):
        shutil.copy(DEPLOY / "slurm" / name, tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    return tmp_path


def run(slurm: Slurm, folder: Path) -> str:
    """What the job printed, once it has ended by itself."""
    job = slurm.submit(folder / "allocation.sbatch", f"--chdir={folder}", "--mem-per-cpu=700M", "--output=out")
    try:
        slurm.wait(job, seconds=120.0)
    finally:
        slurm.cancel(job)
        printed = (folder / "out").read_text() if (folder / "out").exists() else ""
        print(printed)
    assert slurm.state(job) == "COMPLETED"
    return printed


def test_over_tls(slurm: Slurm, folder: Path) -> None:
    """It ends when its script has, and leaves no key."""
    assert "duality gap" in run(slurm, folder)
    assert {path.name for path in folder.iterdir()} == {"allocation.sbatch", "allocation.py", "out"}


def test_in_the_clear(slurm: Slurm, folder: Path) -> None:
    script = folder / "allocation.py"
    text = script.read_text()
    for words in TLS:
        assert words in text
        text = text.replace(words, "")
    script.write_text(text)
    assert "duality gap" in run(slurm, folder)


def test_a_script_that_fails(slurm: Slurm, folder: Path) -> None:
    """It ends the job, and does not wait for its walltime."""
    script = folder / "allocation.py"
    text = script.read_text()
    script.write_text(text[: text.index("    X, y")] + "    raise SystemExit('nothing to fit')\n")
    with pytest.raises(AssertionError, match="FAILED"):
        run(slurm, folder)
