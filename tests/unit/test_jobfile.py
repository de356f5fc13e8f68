"""Job files: `launch`'s keywords in YAML, and errors that say file, line and key."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import paramserver as ps
from paramserver.cluster import jobfile
from paramserver.cluster.jobfile import KEYS
from paramserver.errors import InvalidInput
from paramserver.plugins import Named, make


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str) -> jobfile.Job:
    Path("job.yaml").write_text(text)
    return jobfile.read("job.yaml")


def test_the_keys_are_those_of_launch() -> None:
    assert KEYS.keys() == inspect.signature(ps.launch).parameters.keys() - {"client"} | {"cluster"}


def test_values_are_what_was_written() -> None:
    np.save("z.npy", np.arange(3.0))
    job = read(
        """\
problem: {poisson: {standardize: true}}
X: [a/*.parquet, b/*.parquet]
y: no
sample-weight: 12
penalty: {elasticnet: {alpha: 1e-2, l1_ratio: 0.3}}
consensus: {admm: {rho: 0.5}}
z0: z.npy
tol: 1e-8
max_pushes: 1000
keep: true
inference: null
cluster:
  system: slurm
  jobs: 4
  wait: 60
  walltime: 1:30:00
  memory: 4GB
  cores: 2
  job-extra-directives: [--nice=5]
  queue: infinity
"""
    )
    assert job.values["X"] == ["a/*.parquet", "b/*.parquet"]
    assert (job.values["y"], job.values["sample_weight"]) == ("no", "12")
    assert make("problem", job.values["problem"]) == ps.Poisson(standardize=True)
    assert repr(make("penalty", job.values["penalty"])) == repr(ps.ElasticNet(0.01, 0.3))
    assert make("consensus", job.values["consensus"]) == ps.ADMM(rho=0.5)
    assert job.values["z0"].tolist() == [0.0, 1.0, 2.0]
    assert (job.values["tol"], job.values["max_pushes"], job.values["keep"]) == (1e-8, 1000, True)
    assert "inference" not in job.values
    assert job.cluster is not None
    assert (job.cluster.system, job.cluster.jobs, job.cluster.wait) == ("slurm", 4, 60.0)
    assert job.cluster.keywords == {
        "walltime": "1:30:00", "memory": "4GB", "cores": 2, "job_extra_directives": ["--nice=5"], "queue": "infinity",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("l1", Named("l1", {})),
        ("{l1: 3}", Named("l1", {"alpha": 3})),
        ("{l1: }", Named("l1", {})),
        ("none", Named("none", {})),
        ("{group_l1: {groups: [[0, 1], [2]], alpha: 2}}", Named("group_l1", {"groups": [[0, 1], [2]], "alpha": 2})),
    ],
)
def test_plugins_by_name(text: str, named: Named) -> None:
    assert read(f"X: flights\npenalty: {text}").values["penalty"] == named


def test_a_function_goes_to_workers_that_lack_its_module() -> None:
    Path("my_stops.py").write_text("def early(status):\n    return status.pushes > 10\n")
    until = read("X: flights\nuntil: my_stops:early").values["until"]
    there = "import sys, cloudpickle; print(cloudpickle.loads(bytes.fromhex(sys.argv[1])).__name__)"
    command = [sys.executable, "-c", there, cloudpickle.dumps(until).hex()]
    out = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60)
    assert out.stdout == "early\n", out.stderr


def test_a_system_is_a_cluster_already() -> None:
    assert read("X: flights\ncluster: pbs").cluster == jobfile.Request("pbs")
    adapt = read("X: flights\ncluster: {system: pbs, adapt: 1:8}").cluster
    assert adapt is not None
    assert (adapt.adapt, adapt.least, adapt.most) == ((1, 8), 1, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("X: flights\ntoll: 1e-6", r"job.yaml:2: no key 'toll' \(did you mean 'tol'\?\); there are X, checkpoint,"),
        ("X: flights\n\ntol: small", "job.yaml:3: tol: needs a number, got 'small'"),
        ("X: flights\nmax-pushes: 1.5", "job.yaml:2: max-pushes: needs a whole number, got '1.5'"),
        ("X: flights\nkeep: 1", "job.yaml:2: keep: needs true or false, got '1'"),
        ("X: {a: 1}", r"job.yaml:1: X: needs a path or a list of them, got \{'a': 1\}"),
        ("X: flights\ny: [a, b]", "job.yaml:2: y: needs a word, got"),
        ("X: flights\nz0: z.npy", r"job.yaml:2: z0: needs the path of a .npy file \(.*No such file"),
        ("X: flights\nuntil: early", "job.yaml:2: until: needs package.module:function, got 'early'"),
        ("X: flights\nuntil: nowhere:early", r"job.yaml:2: until: needs a module that can be imported \(No module"),
        ("X: flights\nuntil: math:early", "job.yaml:2: until: needs a function of math, got 'math:early'"),
        ("X: flights\nproblem: logit", r"job.yaml:2: problem: no problem 'logit' \(did you mean 'logistic'\?\); there"),
        ("X: flights\nproblem: quantile", "job.yaml:2: problem: quantile needs the setting 'smoothing'"),
        ("X: flights\npenalty: {l1: {alfa: 1}}", r"2: penalty: l1 has no setting 'alfa' \(did you mean 'alpha'"),
        ("X: flights\npenalty: {l1: -1}", "job.yaml:2: penalty: alpha must be a finite number ≥ 0"),
        ("X: flights\npenalty: {l1: a lot}", "job.yaml:2: penalty: "),
        ("X: flights\npenalty: {l1: 1, l2: 1}", "job.yaml:2: penalty: needs a name, or one name with its settings"),
        ("X: flights\nconsensus: {admm: {rho: -1}}", "job.yaml:2: consensus: rho"),
        ("X: flights\ntol: 1\ntol: 2", "job.yaml:3: tol: is in line 2 already"),
        ("y: late", "job.yaml:1: X: is missing"),
        ("X: [", "job.yaml:1: no YAML: "),
        ("flights", "job.yaml:1: must be keys and values"),
        ("X: flights\ncluster: slrum", r"job.yaml:2: cluster: system must be one of .*did you mean 'slurm'"),
        ("X: flights\ncluster:\n  cores: 2", "job.yaml:3: cluster: says no system: one of htcondor, lsf"),
        ("X: flights\ncluster:\n  system: sge\n  jobs: 0", "job.yaml:4: cluster: jobs must be ≥ 1, got 0"),
        ("X: flights\ncluster:\n  system: sge\n  jobs: a", "job.yaml:4: cluster: jobs: needs a whole number, got 'a'"),
        ("X: flights\ncluster:\n  system: sge\n  adapt: 8", "job.yaml:4: cluster: adapt: adapt must be MIN:MAX jobs"),
        ("X: flights\ncluster:\n  system: sge\n  adapt: 4:2", "job.yaml:4: cluster: adapt: adapt must be MIN:MAX jobs"),
        ("X: flights\ncluster:\n  jobs: 2\n  system: sge\n  adapt: 0:2", "job.yaml:3: cluster: jobs says how many"),
        ("X: flights\ncluster:\n  system: sge\n  wait: 0", "job.yaml:4: cluster: wait must be seconds > 0"),
    ],
)  # fmt: skip
def test_errors_say_where(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(text)


def test_no_file() -> None:
    with pytest.raises(InvalidInput, match=r"none.yaml cannot be read: .*No such file"):
        jobfile.read("none.yaml")
