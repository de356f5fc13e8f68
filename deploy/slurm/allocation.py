"""A fit inside one Slurm allocation: each task of srun runs this file, and one of them gets past the `with`."""

from distributed import Client

import paramserver as ps
from paramserver.cluster import SLURMRunner

with SLURMRunner(security=True) as runner, Client(runner) as client:
    client.wait_for_workers(runner.n_workers, timeout=120)
    X, y = ps.datasets.flights()  # yours instead, from the file system that all nodes see
    print(ps.fit(ps.Logistic(), X, y, penalty=ps.L2(1.0), require_tls=True, client=client))
