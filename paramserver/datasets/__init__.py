"""Data ready to fit: real flights, airline files, one-hot encoding with names kept, Parquet and CSV files."""

from paramserver.datasets.base import Dataset
from paramserver.datasets.dataexpo import airlines
from paramserver.datasets.files import from_files
from paramserver.datasets.nycflights import flights
from paramserver.datasets.onehot import encode
from paramserver.workers.blocks import Encoded

__all__ = ["Dataset", "Encoded", "airlines", "encode", "flights", "from_files"]
