"""A chunk's design matrix X, whatever its storage: dense, sparse or a table of codes."""

from paramserver.workers.design.base import Block, Design
from paramserver.workers.design.dense import Dense
from paramserver.workers.design.reading import as_design
from paramserver.workers.design.sparse import Sparse
from paramserver.workers.design.table import Table

__all__ = ["Block", "Dense", "Design", "Sparse", "Table", "as_design"]
