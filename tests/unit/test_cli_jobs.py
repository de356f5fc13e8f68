"""What the command line says of a cluster of jobs before there is one: no batch system is needed for that."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from paramserver.cli import main

JOB = """\
X: flights
cluster:
  system: slurm
  jobs: 2
  cores: 1
  memory: 1GB
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a job file, on a machine without a batch system."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def test_a_dry_run_prints_the_script_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "job.yaml", "--dry-run", "--tls"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("#!/usr/bin/env bash\n")
    assert "#SBATCH --signal=B:USR1@60\n" in out
    assert f"--tls-cert {here}/.paramserver-tls-…/cert.pem" in out
    assert out.endswith("/key.pem\n")
    assert err == ""
    assert [path.name for path in here.iterdir()] == ["job.yaml"]


@pytest.mark.parametrize(
    ("more", "words", "text"),
    [
        ("", "job.yaml", "sbatch is not on this machine's PATH: run this where jobs are submitted"),
        ("  queu: debug", "job.yaml", "job.yaml:7: cluster: SLURMCluster has no keyword 'queu' (did you"),
        ("  shebang: {a: b}\n  queue: 1", "job.yaml --jobs 0", "jobs must be ≥ 1, got 0"),
        ("  security: true", "job.yaml", "job.yaml:7: cluster: security is tls here"),
        ("", "job.yaml --cluster slrum", "must be one of htcondor, lsf, moab, oar, pbs, sge, slurm, got 'slrum'"),
        ("", "job.yaml --adapt 8", "adapt must be MIN:MAX jobs, such as 0:8, got '8'"),
        ("", "job.yaml --jobs 2 --adapt 0:8", "leave one of both out"),
        ("", "job.yaml --wait 0", "wait must be seconds > 0, got 0"),
        ("", "job.yaml --scheduler tcp://127.0.0.1:1 --tls", "leave --cluster and its options out"),
        ("", "job.yaml --scheduler-file f --dry-run", "leave --cluster and its options out"),
        ("", "job.yaml --workers 2", "--workers is of a LocalCluster: --jobs says how many jobs"),
        ("", "job.yaml --tol -1", "tol must be None or a number > 0, got -1.0"),
        ("tol: -1", "job.yaml", "job.yaml:7: tol must be None or a number > 0, got -1.0"),
        ("on_chunk_loss: forget", "job.yaml", "job.yaml:7: on_chunk_loss must be 'fail' or 'drop', got 'forget'"),
        ("", "job.yaml --checkpoint /proc/none", "/proc/none"),
        ("", "job.yaml --summary", "a penalised fit does not define standard errors"),
        ("", "flights --cluster slurm", "say how large a job is: cores and memory, under cluster: in the job file"),
        ("", "flights --jobs 2", "--jobs is of a batch system's jobs: say which, --cluster slurm"),
    ],
)  # fmt: skip
def test_mistakes(here: Path, capsys: pytest.CaptureFixture[str], more: str, words: str, text: str) -> None:
    (here / "job.yaml").write_text(JOB + more)
    assert main(["fit", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("paramserver: ")
    assert text in err


def test_dask_jobqueue_is_missing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)  # its import fails, as where it is not installed
    assert main(["fit", "job.yaml", "--dry-run"]) == 2
    assert 'pip install "paramserver[jobqueue]"' in capsys.readouterr().err
