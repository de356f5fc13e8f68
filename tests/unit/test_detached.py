"""Detached fits as far as no batch system is needed: the head job's script, its folder, what its command is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from paramserver.cli import main
from paramserver.cli.detached import _without
from paramserver.cluster import schedulerfile
from paramserver.cluster.head import Folder
from paramserver.errors import InvalidInput

pytest.importorskip("dask_jobqueue")

JOB = """
X: flights
name: delays
cluster:
  system: {system}
  jobs: 3
  cores: 4
  memory: 8GB
  walltime: '01:00:00'
  head: {{cores: 1, memory: 2GB, walltime: '24:00:00'}}
"""


def script(folder: Path, capsys: Any, system: str, *words: str) -> str:
    (folder / "job.yaml").write_text(JOB.format(system=system))
    os.chdir(folder)
    assert main(["fit", "job.yaml", "--detach", *words, "--dry-run"]) == 0
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("system", ["slurm", "pbs", "sge"])
def test_the_script(tmp_path: Path, monkeypatch: Any, capsys: Any, system: str) -> None:
    """Directives first, of the head's own size; then the same command, in the same directory, in place of the shell."""
    monkeypatch.chdir(tmp_path)
    said = script(tmp_path, capsys, system).splitlines()
    comments = [line.startswith("#") for line in said if line]
    assert comments == sorted(comments, reverse=True)
    whole = "\n".join(said)
    assert "24:00:00" in whole
    assert "01:00:00" not in whole
    assert f"cd {tmp_path}" in said
    command = next(line for line in said if line.startswith("exec "))
    assert command.endswith(f"-m paramserver fit job.yaml --head {tmp_path / 'paramserver-delays'}")
    assert not (tmp_path / "paramserver-delays").exists()


def test_slurm_s_is_warned(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    said = script(tmp_path, capsys, "slurm", "out")
    for directive in ("--cpus-per-task=1", "--mem=2G", "--signal=B:USR1@60", f"-e {tmp_path}/out/"):
        assert f"#SBATCH {directive}" in said
    assert said.rstrip().endswith(f"--head {tmp_path / 'out'}")


@pytest.mark.parametrize(
    ("words", "folder", "left"),
    [
        ("fit flights --cluster slurm --detach", "", "fit flights --cluster slurm"),
        ("fit flights --detach out --cluster slurm", "out", "fit flights --cluster slurm"),
        ("fit flights --detach=out --cluster slurm", "out", "fit flights --cluster slurm"),
        ("fit --detach --cluster slurm --dry-run flights", "", "fit --cluster slurm flights"),
        ("fit out --cluster slurm --detach out", "out", "fit out --cluster slurm"),
    ],
)
def test_the_job_s_command_does_not_detach(words: str, folder: str, left: str) -> None:
    assert _without(words.split(), folder) == left.split()


def test_a_folder_is_one_fit_s(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "out"))
    folder.make()
    folder.script.touch()
    with pytest.raises(InvalidInput, match=r"another detached fit's, it goes on with .*head\.sh"):
        folder.make()
    folder.conclude({"converged": True})
    with pytest.raises(InvalidInput, match=r"its result is in .*result\.json"):
        folder.make()


def test_the_scheduler_file_is_there_as_long_as_its_scheduler(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with folder.announced("tcp://127.0.0.1:1", None):
        assert schedulerfile.read(folder.says()).address == "tcp://127.0.0.1:1"
        with folder.announced("tcp://127.0.0.1:2", None):  # a successor, which was faster
            pass
        assert not folder.says()
    folder.conclude({})
    with pytest.raises(InvalidInput, match=r"has ended, see .*result\.json"):
        schedulerfile.read(str(folder.scheduler))


def test_it_is_for_batch_systems(capsys: Any) -> None:
    assert main(["fit", "flights", "--detach"]) == 2
    assert "--cluster slurm" in capsys.readouterr().err
