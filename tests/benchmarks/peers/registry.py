"""Every peer by its name."""

from __future__ import annotations

from . import dask_glm, driver_loop, ray_server, single, spark, specialists
from .base import Peer
from .ours import Limit, Ours

OURS, LIMIT = "paramserver", "the limit"

PEERS: dict[str, type[Peer]] = {
    OURS: Ours,
    LIMIT: Limit,
    "scikit-learn lbfgs": single.Lbfgs,
    "scikit-learn newton-cholesky": single.NewtonCholesky,
    "scikit-learn saga": single.Saga,
    "scikit-learn liblinear": single.Liblinear,
    "scikit-learn lasso": single.Lasso,
    "glum": specialists.Glum,
    "skglm": specialists.Skglm,
    "celer": specialists.Celer,
    "snapml": specialists.Snapml,
    "dask-glm admm": dask_glm.Admm,
    "dask-glm lbfgs": dask_glm.Lbfgs,
    "dask-glm newton": dask_glm.Newton,
    "dask-ml admm": dask_glm.MlAdmm,
    "dask-ml lbfgs": dask_glm.MlLbfgs,
    "dask-ml newton": dask_glm.MlNewton,
    "Spark MLlib": spark.Spark,
    "2017 driver loop": driver_loop.DriverLoop,
    "Ray server": ray_server.RayServer,
}
