"""What is fitted: a data set, a loss, a penalty, and which peers are the fastest known ones there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

TARGETS = (1e-4, 1e-6, 1e-8)  #: true relative gaps, (F − F*)/F(null model)


@dataclass(frozen=True)
class Case:
    """min Σ loss(y, Xw + b) + l1‖w‖₁ + l2/2‖w‖²; losses are half unit deviances, b is free."""

    name: str
    data: str
    what: str
    loss: str = "logistic"  #: logistic, normal or poisson
    l1: float = 0.0
    l2: float = 0.0
    intercept: bool = True
    fastest: tuple[str, ...] = ()  #: the peers that a run without --all compares with
    ratio: float | None = None  #: ours over the best peer, to 1e-6: at most

    @property
    def letter(self) -> str:
        """The data set's letter."""
        return self.name.partition("-")[0]

    @property
    def alpha(self) -> float:
        """Strength of the penalty as a whole."""
        return self.l1 + self.l2

    @property
    def l1_ratio(self) -> float:
        """Its share of l1."""
        return self.l1 / self.alpha


class Setting(NamedTuple):
    """How a peer is asked for one accuracy; ``target`` where it is asked for just that gap."""

    label: str
    options: dict[str, Any]
    target: float | None = None


LBFGS, NEWTON, SAGA = "scikit-learn lbfgs", "scikit-learn newton-cholesky", "scikit-learn saga"
#: by form of the data: flights L2 and L1, many rows L2 and L1
FLIGHTS_L2 = (NEWTON, "glum", LBFGS, "Ray server", "snapml")
FLIGHTS_L1 = ("glum", "skglm", SAGA, "Spark MLlib", "Ray server")
ROWS_L2 = (LBFGS, "glum", "Ray server", "dask-glm lbfgs", NEWTON)
ROWS_L1 = ("glum", "skglm", SAGA, "Ray server", "Spark MLlib")

CASES = (
    Case("a-l2", "flights", "flights, dense, L2", l2=1.0, fastest=FLIGHTS_L2, ratio=0.3),
    Case("a-l1", "flights", "flights, dense, L1", l1=10.0, fastest=FLIGHTS_L1, ratio=0.3),
    Case("b-csr-l2", "flights-csr", "flights, CSR, L2", l2=1.0, fastest=FLIGHTS_L2, ratio=0.8),
    Case("b-csr-l1", "flights-csr", "flights, CSR, L1", l1=10.0, fastest=FLIGHTS_L1, ratio=0.8),
    Case("b-codes-l2", "flights-codes", "flights, codes, L2", l2=1.0, fastest=FLIGHTS_L2, ratio=0.8),
    Case("b-codes-l1", "flights-codes", "flights, codes, L1", l1=10.0, fastest=FLIGHTS_L1, ratio=0.8),
    Case("c-l2", "logistic", "logistic 1e6 × 100, L2", l2=1.0, fastest=ROWS_L2, ratio=0.5),
    Case("c-l1", "logistic", "logistic 1e6 × 100, L1", l1=500.0, fastest=ROWS_L1, ratio=0.5),
    Case("c-en", "logistic", "logistic 1e6 × 100, elastic net", l1=250.0, l2=250.0, fastest=ROWS_L1, ratio=0.5),
    Case(
        "d", "lasso", "lasso 1e6 × 100", "normal", l1=5000.0, intercept=False, ratio=0.5,
        fastest=("skglm", "glum", "scikit-learn lasso", "snapml", "Ray server"),
    ),
    Case(
        "e", "sparse", "sparse logistic 5e5 × 1e5, L1", l1=20.0, intercept=False, ratio=0.7,
        fastest=("skglm", "snapml", "scikit-learn liblinear", "celer", SAGA),
    ),
    Case("f", "poisson", "Poisson 1e6 × 50, L2", "poisson", l2=1.0, fastest=ROWS_L2, ratio=0.5),
    Case("g-l2", "drifting", "sorted, shifted 1e6 × 100, L2", l2=1.0, fastest=ROWS_L2, ratio=0.5),
    Case("g-l1", "drifting", "sorted, shifted 1e6 × 100, L1", l1=500.0, fastest=ROWS_L1, ratio=0.5),
    Case("g-en", "drifting", "sorted, shifted 1e6 × 100, elastic net", l1=250.0, l2=250.0, fastest=ROWS_L1, ratio=0.5),
    Case("fixed", "tiny", "200 × 5: the fixed cost", l2=1.0),
)  # fmt: skip
BY_NAME = {case.name: case for case in CASES}
