"""The command line as it is used: separate processes that share only a scheduler's address."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from distributed import Client

import paramserver as ps
from tests.cluster.helpers import make_data, reference, until

KEYS = {
    "objective", "gap", "gap_absolute", "certificate", "converged", "reason", "n_rows", "n_features", "n_chunks",
    "n_pushes", "n_refused", "seconds_total", "seconds_solve", "consensus", "penalty", "version",
}  # fmt: skip


def cli(*words: str, timeout: float = 100.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paramserver", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def json_of(out: subprocess.CompletedProcess[str]) -> Any:
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    X, y = make_data(3000, 4, seed=3)
    frame = pd.DataFrame(X, columns=list("abcd")).assign(group=np.where(X[:, 0] > 0, "up", "down"), late=y)
    path = tmp_path_factory.mktemp("cli")
    for k in range(3):
        frame.iloc[k::3].to_csv(path / f"part-{k}.csv", index=False)
    return path, frame


def test_flights_on_a_cluster_of_its_own() -> None:
    # Pushes depend on how late answers are, and so on what else this machine does: the best of three
    outs = (cli("fit", "flights", "--tol", "1e-8", "--json") for _ in range(3))
    out = next((out for out in outs if json_of(out)["n_pushes"] <= 8 * 16), None)
    assert out is not None
    result = json_of(out)
    assert result.keys() >= KEYS
    assert (result["n_rows"], result["n_features"], result["n_chunks"]) == (327346, 164, 16)
    assert result["converged"]
    assert result["certificate"] == "duality gap"
    assert 0 <= result["gap"] <= 1e-8
    assert "paramserver watch --scheduler tcp://127.0.0.1:" in out.stderr
    assert "certified gap" in out.stderr
    assert "Warning" not in out.stderr


@pytest.mark.parametrize(
    ("words", "penalty", "problem"),
    [
        (["--penalty", "l1", "--alpha", "3"], ps.L1(3.0), ps.Logistic()),
        (["--penalty", "elasticnet", "--alpha", "4", "--l1-ratio", "0.25"], ps.ElasticNet(4.0, 0.25), ps.Logistic()),
        (["--problem", "least_squares", "--consensus", "admm"], ps.L2(1.0), ps.LeastSquares()),
    ],
    ids=["l1", "elasticnet", "admm"],
)
def test_files(client: Client, csv: Any, words: list[str], penalty: Any, problem: Any) -> None:
    path, frame = csv
    address = client.scheduler.address
    of = ["--target", "late", "--scheduler", address, "--name", "files"]
    out = cli("fit", str(path / "*.csv"), *of, "--json", "--profile", *words)
    result = json_of(out)
    assert sum(result["profile"]["steps"].values()) >= result["n_pushes"]
    encoded = frame[list("abcd")].assign(down=frame.group == "down", up=frame.group == "up").astype(float)
    best = reference(problem, encoded.to_numpy(), frame.late.to_numpy(), penalty)
    assert (result["n_rows"], result["n_features"], result["n_chunks"]) == (3000, 6, 3)
    assert (result["objective"] - float(best.objective)) / float(best.null) <= 1e-6
    assert result["penalty"] == repr(penalty)
    params = json_of(cli("params", "--scheduler", address, "--name", "files", "--json"))
    assert set(params["coef"]) == {"a", "b", "c", "d", "group=down", "group=up"}
    ps.forget("files", client=client)


@pytest.mark.parametrize("words", [["--offset", "o"], ["--exposure", "o", "--no-expand"]], ids=["offset", "exposure"])
def test_columns_beside_the_target(client: Client, tmp_path: Path, words: list[str]) -> None:
    X, y = make_data(3000, 3, seed=4)
    features = pd.DataFrame(X, columns=list("abc")).assign(group=np.where(X[:, 0] > 0, "up", "down"))
    weight, offset = np.arange(3000) % 3, np.sin(np.arange(3000))
    beside = {"late": y, "w": weight, "o": np.exp(offset) if "--exposure" in words else offset}
    features.assign(**beside).to_csv(tmp_path / "kept.csv", index=False)
    of = ["--target", "late", "--sample-weight", "w", *words, "--tol", "1e-12"]
    out = cli("fit", str(tmp_path / "kept.csv"), *of, "--scheduler", client.scheduler.address, "--json")
    exact = ps.fit(
        ps.Logistic(), ps.datasets.encode(features), y, sample_weight=weight, offset=offset, penalty=ps.L2(1.0),
        tol=1e-12, client=client,
    )  # fmt: skip
    assert json_of(out)["n_features"] == 5
    assert json_of(out)["objective"] == pytest.approx(exact.objective, rel=1e-10)
    ps.forget("kept", client=client)


def test_a_run_goes_on_from_its_checkpoint(client: Client, csv: Any, tmp_path: Path) -> None:
    path, _ = csv
    fit = ["fit", str(path / "*.csv"), "--target", "late", "--scheduler", client.scheduler.address, "--json"]
    first = json_of(cli(*fit, "--checkpoint", str(tmp_path / "run"), "--tol", "1e-4"))
    again = json_of(cli(*fit, "--resume", str(tmp_path / "run"), "--tol", "1e-10"))
    assert again["converged"]
    assert again["objective"] <= first["objective"] * (1 + 1e-9)
    assert [path.name[:6] for path in (tmp_path / "run").iterdir()] == ["000002"]
    out = cli(*fit, "--checkpoint", str(tmp_path / "run"))
    assert out.returncode == 2
    assert "ps.resume" in out.stderr
    assert "--resume" in out.stderr


def test_a_report_for_people(client: Client, csv: Any) -> None:
    path, _ = csv
    of = ["--target", "late", "--scheduler", client.scheduler.address]
    out = cli("fit", str(path / "part-0.csv"), *of, "--profile")
    assert out.returncode == 0, out.stderr
    for text in ("certificate", "result in hand", "server at work", "idle", "survey"):
        assert text in out.stdout.partition("since its launch")[2]
    for text in ("strongest of 6 coefficients", "group=up", "F − F* ≤", "duality gap", "1,000", "converged"):
        assert text in out.stdout
    ps.forget("part-0", client=client)


def test_a_table_of_standard_errors(client: Client, csv: Any) -> None:
    path, frame = csv
    of = ["--target", "late", "--scheduler", client.scheduler.address, "--name", "table"]
    out = cli("fit", str(path / "*.csv"), *of, "--penalty", "none", "--summary", "--tol", "1e-12")
    assert out.returncode == 0, out.stderr
    rows = {words[0]: words[1:] for words in map(str.split, out.stdout.splitlines()) if len(words) == 7}
    theirs = sm.Logit(frame.late, sm.add_constant(frame[list("abcd")].assign(up=frame.group == "up").astype(float)))
    for name, error in theirs.fit(disp=0).bse[list("abcd")].items():
        assert float(rows[name][1]) == pytest.approx(error, rel=1e-4)
    assert rows["group=up"][1] == "nan"
    assert "do not determine group=down, group=up, intercept" in out.stdout
    ps.forget("table", client=client)
    out = cli("fit", str(path / "*.csv"), *of, "--summary")
    assert out.returncode == 2
    assert "a penalised fit does not define standard errors" in out.stderr


def test_a_live_run_from_other_processes(client: Client, csv: Any, tmp_path: Path) -> None:
    path, _ = csv
    address = client.scheduler.address
    of = ["--scheduler", address, "--name", "live"]
    command = ["fit", str(path / "*.csv"), "--target", "late", *of, "--keep", "--json"]
    fit = subprocess.Popen(
        [sys.executable, "-m", "paramserver", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not any(run["name"] == "live" and run["state"] == "converged" for run in ps.list(client=client)):
        assert time.monotonic() < until
        time.sleep(0.1)
    status = json_of(cli("status", *of, "--json"))
    assert status["state"] == "converged"
    assert status["verified"]["gap"] <= 1e-6
    assert "staleness: median" in cli("status", *of).stdout
    z = tmp_path / "z.npy"
    assert json_of(cli("params", *of, "-o", str(z), "--json"))["certified"]
    assert np.load(z).shape == (7,)
    assert "group=up" in cli("params", *of).stdout
    assert json_of(cli("watch", *of, "--json"))["state"] == "converged"
    assert any(run["name"] == "live" for run in json_of(cli("list", "--scheduler", address, "--json")))
    assert json_of(cli("stop", *of, "--json"))["reason"] == "converged"
    stdout, stderr = fit.communicate(timeout=30)
    assert fit.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["converged"]
    ps.forget("live", client=client)


def test_an_interrupt_leaves_a_cluster_that_is_not_ours(client: Client, csv: Any, tmp_path: Path) -> None:
    """A job file's run, by a scheduler file as Dask writes them."""
    path, _ = csv
    job, file = tmp_path / "job.yaml", tmp_path / "scheduler.json"
    job.write_text(f"X: {path}/*.csv\ny: late\nname: left\nconsensus: {{admm: {{rho: 1e4}}}}\ntol: 1e-12\n")
    file.write_text(json.dumps({"type": "Scheduler", "address": client.scheduler.address, "workers": {}}))
    of = ["--scheduler-file", str(file)]
    fit = subprocess.Popen(
        [sys.executable, "-m", "paramserver", "fit", str(job), *of],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: any(run["state"] == "live" for run in ps.list(client)), 60.0)
    until(lambda: ps.connect("left", client).status().pushes > 10, 60.0)
    fit.send_signal(signal.SIGINT)
    stdout, stderr = fit.communicate(timeout=30)
    assert (fit.returncode, stdout) == (130, ""), stderr
    _, _, last = stderr.partition("left: run 'left' goes on\n")
    assert f"    paramserver watch --scheduler-file {file} --name left\n" in last
    assert json_of(cli("status", *of, "--name", "left", "--json"))["state"] != "failed"
    assert ps.connect("left", client).result(60.0).reason != "stopped"  # with such a rho it ends by itself


def test_a_job_file_and_the_options_over_it(client: Client, csv: Any, tmp_path: Path) -> None:
    path, frame = csv
    job = tmp_path / "job.yaml"
    job.write_text(
        f"X: [{path}/part-0.csv, {path}/part-1.csv, {path}/part-2.csv]\ny: late\npenalty: {{l1: 3}}\n"
        "problem: {logistic: {standardize: true}}\ntol: 1e-3\ncluster: {system: slurm, jobs: 2}\n"
    )
    of = ["--scheduler", client.scheduler.address, "--name", "over", "--json"]
    result = json_of(cli("fit", str(job), *of, "--alpha", "5", "--tol", "1e-10"))
    assert (result["n_rows"], result["n_chunks"]) == (3000, 3)
    assert result["penalty"].startswith(repr(ps.L1(5.0)))
    assert result["gap"] <= 1e-10
    encoded = frame[list("abcd")].assign(down=frame.group == "down", up=frame.group == "up").astype(float)
    exact = ps.fit(
        ps.Logistic(standardize=True), encoded, frame.late, penalty=ps.L1(5.0), tol=1e-10, name="exact", client=client
    )
    assert result["objective"] == pytest.approx(exact.objective, rel=1e-8)
    out = cli("fit", str(job), *of[:4], "--on-chunk-loss", "drop", "--max-seconds", "-1")
    assert (out.returncode, out.stderr.count("max_seconds must be")) == (2, 1)
    job.write_text(job.read_text().replace("tol: 1e-3", "tol: -1"))
    out = cli("fit", str(job), *of)
    assert out.returncode == 2
    assert f"{job}:5: tol must be None or a number > 0, got -1.0" in out.stderr
    job.write_text(f"problem: logistic\nX: {path}/*.csv\ny: lat\n")
    assert f"{job}:3: no column 'lat' in" in cli("fit", str(job), *of).stderr
    job.write_text(f"problem: logistic\nX: {path}/*.parquet\ny: late\n")
    assert f"{job}:2: nothing matches {path}/*.parquet" in cli("fit", str(job), *of).stderr


def test_mistakes(client: Client, csv: Any, tmp_path: Path) -> None:
    path, _ = csv
    address = client.scheduler.address
    for words, code, text in (
        (["fit", str(path / "*.csv")], 2, "--target COL"),
        (["fit", str(path / "*.csv"), "--target", "late", "--alpha", "-1"], 2, "alpha must be a finite number ≥ 0"),
        (["fit", str(path / "*.csv"), "--target", "Late", "--scheduler", address], 2, "late"),
        (["fit", str(tmp_path / "no*.csv"), "--target", "late"], 2, "no*.csv"),
        (["fit", "flights", "--target", "late"], 2, "leave --target out"),
        (["fit", "flights", "--resume", str(tmp_path / "none"), "--scheduler", address], 1, "no checkpoint"),
        (["fit", "flights", "--resume", "a", "--checkpoint", "b"], 2, "leave --checkpoint out"),
        (["fit", "flights", "--chunks", "0"], 2, "must be ≥ 1"),
        (["fit", "flights", "--sample-weight", "distance"], 2, "leave --sample-weight out"),
        (
            ["fit", str(path / "*.csv"), "--target", "late", "--offset", "late", "--scheduler", address],
            2,
            "is the target",
        ),
        (
            ["fit", str(path / "*.csv"), "--target", "late", "--offset", "group", "--scheduler", address],
            2,
            "'group' is",
        ),
        (
            ["fit", str(path / "*.csv"), "--target", "late", "--offset", "no", "--scheduler", address],
            2,
            "no column 'no'",
        ),
        (["fit", "flights", "--tol", "-1", "--scheduler", address], 2, "tol must be None or a number > 0"),
        (["status", "--scheduler", address, "--name", "nobody"], 1, "no run named 'nobody'"),
        (["status", "--scheduler", "tcp://127.0.0.1:1"], 1, "no scheduler answers at tcp://127.0.0.1:1 within 5 s"),
        (["params"], 2, "--scheduler"),
        (["list", "--scheduler-file", str(tmp_path / "none.json")], 2, "none.json cannot be read"),
        (["list", "--scheduler-file", "a", "--scheduler", "b"], 2, "not allowed with"),
        (["fit", "flights", "--tls"], 2, "--tls is of a batch system's jobs: say which"),
        (["fit", "flights", "--dry-run"], 2, "--dry-run is of a batch system's jobs"),
        (["fit", "flights", "--cluster", "slrum"], 2, "did you mean 'slurm'"),
        (["fit", "flights", "--consensus", "newtn"], 2, "no consensus 'newtn' (did you mean 'newton'?)"),
        (["fit", "job.yaml", "flights"], 2, "pass it alone"),
        (["fit", str(tmp_path / "job.yaml")], 2, "cannot be read"),
    ):
        out = cli(*words)
        assert out.returncode == code, (words, out.stderr)
        assert text in out.stderr, (words, out.stderr)
        assert "Traceback" not in out.stderr
