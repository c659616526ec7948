"""How each method is fitted, in the way its field does it: preprocessing learned from the training rows alone.

What a method chooses or stops by are the validation rows. Nothing is fitted anew to both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memlab.benchmark.problem import OWN
from memlab.benchmark.tables import own
from memlab.benchmark.tables.figures import accuracy, log_loss
from memlab.benchmark.tables.split import Split

NEIGHBOURS = (1, 2, 3, 5, 10, 20, 50)
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""C of logistic regression."""
TREES, PATIENCE = 1000, 50
"""Rounds of boosting at most, and without a lower validation loss."""
CATEGORIES = 254
"""Codes that HistGradientBoostingClassifier takes of a column, besides a missing one."""


class Fitted(NamedTuple):
    """A method that has learned."""

    answer: Callable[[], NDArray[np.float64]]
    """Gives (T, C) class mass of the test rows."""
    chosen: str = ""
    """What validation has chosen."""
    seconds: float | None = None
    """What fitting has taken, where the clock would count more than that."""


Fit = Callable[[Split, int], Fitted]
"""Takes a split and how many threads to use."""


def fit_of(name: str) -> Fit:
    """How the method of this name is fitted; words behind it are for the command line of memlab."""
    method, *words = name.split(maxsplit=1)
    if method == OWN:
        return lambda split, _: Fitted(*own.trained(split, *words))
    return FITS[method]


def _knn(split: Split, threads: int) -> Fitted:
    from sklearn.neighbors import KNeighborsClassifier

    prepared = _standardised(split)
    train, validation = prepared(split.train.x), prepared(split.validation.x)
    best: tuple[float, Any] = (-np.inf, None)
    for k in NEIGHBOURS:
        if k > len(train):
            break
        model = KNeighborsClassifier(k, n_jobs=threads).fit(train, split.train.y)
        score = accuracy(_mass(model, validation, split), split.validation.y)
        best = max(best, (score, model), key=lambda each: each[0])
    model = best[1]
    return Fitted(lambda: _mass(model, prepared(split.test.x), split), f"k = {model.n_neighbors}")


def _logistic(split: Split, _: int) -> Fitted:
    from sklearn.linear_model import LogisticRegression

    prepared = _standardised(split)
    train, validation = prepared(split.train.x), prepared(split.validation.x)
    models = [LogisticRegression(C=strength, max_iter=1000).fit(train, split.train.y) for strength in STRENGTHS]
    model = min(models, key=lambda each: log_loss(_mass(each, validation, split), split.validation.y))
    return Fitted(lambda: _mass(model, prepared(split.test.x), split), f"C = {model.C:g}")


def _hist(split: Split, _: int) -> Fitted:
    from sklearn.ensemble import HistGradientBoostingClassifier

    def prepared(x: NDArray[np.float64]) -> NDArray[np.float64]:  # codes are by frequency: beyond are the rarest words
        return np.where(split.is_word & (x >= CATEGORIES), 0, x)

    model = HistGradientBoostingClassifier(
        max_iter=TREES, early_stopping=True, categorical_features=split.is_word, random_state=split.seed
    )
    validation = {"X_val": prepared(split.validation.x), "y_val": split.validation.y}
    model.fit(prepared(split.train.x), split.train.y, **validation)
    return Fitted(lambda: _mass(model, prepared(split.test.x), split), f"{model.n_iter_} rounds")


def _lightgbm(split: Split, threads: int) -> Fitted:
    from lightgbm import LGBMClassifier, early_stopping

    model = LGBMClassifier(n_estimators=TREES, n_jobs=threads, random_state=split.seed, verbose=-1)
    model.fit(
        split.train.x,
        split.train.y,
        eval_set=[(split.validation.x, split.validation.y)],
        categorical_feature=np.flatnonzero(split.is_word).tolist(),
        callbacks=[early_stopping(PATIENCE, verbose=False)],
    )
    return Fitted(lambda: _mass(model, split.test.x, split), f"{model.best_iteration_} rounds")


def _catboost(split: Split, threads: int) -> Fitted:
    from catboost import CatBoostClassifier

    def prepared(x: NDArray[np.float64]) -> NDArray[Any]:
        if not split.is_word.any():
            return x
        cells = x.astype(object)  # categories must be whole numbers: a missing one is -1
        cells[:, split.is_word] = np.nan_to_num(x[:, split.is_word], nan=-1).astype(int)
        return cells

    model = CatBoostClassifier(
        iterations=TREES,
        cat_features=np.flatnonzero(split.is_word).tolist(),
        thread_count=threads,
        random_seed=split.seed,
        allow_writing_files=False,
        verbose=False,
    )
    validation = (prepared(split.validation.x), split.validation.y)
    model.fit(prepared(split.train.x), split.train.y, eval_set=validation, early_stopping_rounds=PATIENCE)
    return Fitted(lambda: _mass(model, prepared(split.test.x), split), f"{model.tree_count_} rounds")


def _realmlp(split: Split, threads: int) -> Fitted:
    from pytabkit import RealMLP_TD_Classifier

    medians = _medians(split)

    def prepared(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(np.isnan(x), np.where(split.is_word, -1, medians), x)

    model = RealMLP_TD_Classifier(random_state=split.seed, n_threads=threads)
    validation = (prepared(split.validation.x), split.validation.y)
    model.fit(prepared(split.train.x), split.train.y, *validation, cat_indicator=split.is_word.tolist())
    return Fitted(lambda: _mass(model, prepared(split.test.x), split))


FITS: dict[str, Fit] = {
    "knn": _knn,
    "logistic": _logistic,
    "hist": _hist,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
    "realmlp": _realmlp,
}


def _standardised(split: Split) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Rows with numbers of mean 0 and variance 1 in training, medians where one is missing, and one-hot words."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((numbers, ~split.is_word), (words, split.is_word))
    columns.fit(split.train.x)
    transformed: Callable[[NDArray[np.float64]], NDArray[np.float64]] = columns.transform
    return transformed


def _medians(split: Split) -> NDArray[np.float64]:
    """(F,) of each column in training, 0 for one that is missing everywhere there."""
    from sklearn.impute import SimpleImputer

    found: NDArray[np.float64] = (
        SimpleImputer(strategy="median", keep_empty_features=True).fit(split.train.x).statistics_
    )
    return np.nan_to_num(found)


def _mass(model: Any, x: Any, split: Split) -> NDArray[np.float64]:
    """(n, C) what a model with scikit-learn's contract answers, also of classes that it has not seen."""
    mass = np.zeros((len(x), len(split.class_names)))
    mass[:, np.asarray(model.classes_, dtype=np.int64)] = model.predict_proba(x)
    return mass
