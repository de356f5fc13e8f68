"""The 2017 article's toy experiment at its own sizes, and our rules on the same chunks."""

from paramserver.comparison.article.experiment import experiment
from paramserver.comparison.article.report import Article

__all__ = ["Article", "experiment"]
