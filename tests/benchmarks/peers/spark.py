"""Spark MLlib on two local threads, the data a cached DataFrame of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .base import Peer, Point, Watch, grid
from .cases import Case, Setting
from .data import CHUNKS, Data, Store


class Spark(Peer):
    """Its logistic, linear and Poisson regressions."""

    package = "pyspark"

    def lacks(self, case: Case) -> str:
        if case.data == "flights-codes":
            return "takes no codes"
        return "its Poisson regression has no L1 penalty" if case.loss == "poisson" and case.l1 else ""

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("maxIter", 5, 10, 20, 40, 80, 160, tol=0.0)

    def load(self, case: Case, store: Store) -> None:
        from pyspark.sql import SparkSession

        made = SparkSession.builder.master("local[2]").config("spark.driver.memory", "8g")
        for key, value in {"ui.enabled": "false", "sql.shuffle.partitions": "2", "log.level": "ERROR"}.items():
            made = made.config(f"spark.{key}", value)
        self.session, self.case = made.getOrCreate(), case
        file = store.folder / "rows.parquet"
        if not file.exists():
            _write(store, file)
        self.rows = self.session.read.parquet(str(file)).select("label", _vector(store)("i", "v").alias("features"))
        self.rows = self.rows.repartition(4).cache()
        self.n = self.rows.count()
        self._fit(maxIter=1, tol=0.0)

    def fit(self, limit: float, **options: Any) -> list[Point]:
        watch = Watch(limit)
        model = self._fit(**options)
        w = model.coefficients.toArray()
        watch.point(np.append(w, model.intercept) if self.case.intercept else w)
        return watch.points

    def _fit(self, **options: Any) -> Any:
        from pyspark.ml.classification import LogisticRegression
        from pyspark.ml.regression import GeneralizedLinearRegression, LinearRegression

        case = self.case
        more = {"regParam": case.alpha / self.n, "fitIntercept": case.intercept, **options}
        if case.loss == "poisson":
            return GeneralizedLinearRegression(family="poisson", **more).fit(self.rows)
        model = LogisticRegression if case.loss == "logistic" else LinearRegression
        return model(elasticNetParam=case.l1_ratio, standardization=False, **more).fit(self.rows)

    def close(self) -> None:
        self.session.stop()


def _write(store: Store, file: Any) -> None:
    """Rows as lists of their entries' columns and values; no columns where all are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("label", pa.float64()), ("i", pa.list_(pa.int32())), ("v", pa.list_(pa.float64()))])
    with pq.ParquetWriter(file, schema) as writer:
        for k in range(CHUNKS):
            writer.write_table(_table(store.part(k), schema))


def _table(chunk: Data, schema: Any) -> Any:
    import pyarrow as pa

    X, y = chunk
    if sp.issparse(X):
        starts, columns, values = X.indptr.astype(np.int32), X.indices.astype(np.int32), X.data
    else:
        n, d = X.shape
        starts, columns, values = np.arange(0, n * d + 1, d, dtype=np.int32), None, X.ravel()
    v = pa.ListArray.from_arrays(starts, values)
    i = pa.nulls(len(y), pa.list_(pa.int32())) if columns is None else pa.ListArray.from_arrays(starts, columns)
    return pa.table({"label": y, "i": i, "v": v}, schema=schema)


def _vector(store: Store) -> Any:
    """Their columns as Spark's vectors."""
    from pyspark.ml.functions import array_to_vector
    from pyspark.ml.linalg import SparseVector, VectorUDT
    from pyspark.sql.functions import udf

    X = store.read(mapped=True).X
    if not sp.issparse(X):
        return lambda _i, v: array_to_vector(v)
    d = X.shape[1]
    return udf(lambda i, v: SparseVector(d, i, v), VectorUDT(), useArrow=False)
