"""Which methods there are, what each is and what it needs; nothing heavy is imported to say so."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from memlab.benchmark.problem import OWN

INSTALL = 'pip install -e ".[bench-tables]"'


class Method(NamedTuple):
    """A way to learn from the rows of a table."""

    about: str
    """What it is, and what it chooses by the validation rows."""
    needs: str
    """The package it is from, with the versions that it may have."""

    @property
    def package(self) -> str:
        """Name of this package."""
        return self.needs.split(">")[0]

    @property
    def version(self) -> str | None:
        """That of the package here; None if it is missing or another than is needed."""
        from packaging.requirements import Requirement

        try:
            here = version(self.package)
        except PackageNotFoundError:
            return None
        return here if Requirement(self.needs).specifier.contains(here, prereleases=True) else None


METHODS = {
    "knn": Method("nearest neighbours, standardised and one-hot; k by validation accuracy", "scikit-learn>=1.6"),
    "logistic": Method("logistic regression, standardised and one-hot; C by validation log loss", "scikit-learn>=1.6"),
    "hist": Method("HistGradientBoostingClassifier; trees until validation loss stops falling", "scikit-learn>=1.7"),
    "lightgbm": Method("LightGBM; as many trees as have the least validation loss", "lightgbm>=4.1"),
    "catboost": Method("CatBoost; as many trees as have the least validation loss", "catboost>=1.2"),
    "realmlp": Method("RealMLP with tuned defaults (TD); the epoch of the least validation error", "pytabkit>=1.7"),
    OWN: Method("python train.py data=table; the epoch of the least validation loss", "torch>=2.6"),
}
"""By name. Those of memlab may have words for the command line behind, as ``memlab memory=topk``."""


def method_of(name: str) -> Method:
    """The method of this name, whatever words are behind it."""
    return METHODS[name.split()[0]]
