"""scikit-learn's own checks, plain loops beside what is answered, and what a fit leaves behind: nothing."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import random
import signal
import tomllib
import warnings
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.parallel import Parallel, delayed

import memlab
from memlab.__main__ import main
from memlab.estimator import MemoryClassifier
from memlab.runs.composition import conf_folder
from tests.conftest import REPOSITORY
from tests.data import files_of_tables

SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "embedding_size": 8, "max_iter": 1}
IRIS = load_iris(return_X_y=True)
X: NDArray[np.float64] = IRIS[0][::2]
Y: NDArray[np.int64] = IRIS[1][::2]
WORDS = np.array(["ape", "bear", "cat"])[Y]


def small(**words: Any) -> MemoryClassifier:
    return MemoryClassifier(**{**SMALL, **words})


@pytest.fixture(scope="module")
def fitted_once() -> bytes:
    return pickle.dumps(small(max_iter=4, learning_rate_init=0.01).fit(X, WORDS))


@pytest.fixture
def fitted(fitted_once: bytes) -> MemoryClassifier:
    """Fitted, and of one's own."""
    classifier: MemoryClassifier = pickle.loads(fitted_once)
    return classifier


@parametrize_with_checks([small(max_iter=3, learning_rate_init=0.03)])  # type: ignore[untyped-decorator]
def test_scikit_learn_checks(estimator: MemoryClassifier, check: Any) -> None:
    """All of them, without an exception."""
    check(estimator)


def embedded(classifier: MemoryClassifier, rows: NDArray[Any]) -> list[list[float]]:
    model = classifier._memory.model
    numbers: list[list[float]] = model.encode(torch.as_tensor(rows)).tolist()
    return numbers


def score(kind: str, scale: float, query: list[float], key: list[float]) -> float:
    product = math.fsum(a * b for a, b in zip(query, key, strict=True))
    if kind == "cosine":
        return scale * product / math.hypot(*query) / math.hypot(*key)
    return scale * product if kind == "dot" else -scale * math.dist(query, key) ** 2


class TestAnswers:
    @pytest.mark.parametrize("kind", ["euclidean", "cosine", "dot"])
    @pytest.mark.parametrize("k", [None, 3])
    def test_equal_a_plain_loop(self, kind: str, k: int | None) -> None:
        classifier = small(similarity=kind, n_neighbors=k, scale=0.5).fit(X, WORDS)
        scale = float(torch.as_tensor(classifier._memory.model.similarity.scale).detach())
        keys = embedded(classifier, X)
        mass, (distances, indices) = classifier.predict_proba(X[:5] + 0.1), classifier.kneighbors(X[:5] + 0.1, 4)
        for place, query in enumerate(embedded(classifier, X[:5] + 0.1)):
            ranked = sorted(((score(kind, scale, query, key), row) for row, key in enumerate(keys)), reverse=True)
            read = ranked if k is None else ranked[:k]
            parts = {
                name: math.fsum(math.exp(z) for z, row in read if WORDS[row] == name) for name in ("ape", "bear", "cat")
            }
            assert mass[place] == pytest.approx([part / sum(parts.values()) for part in parts.values()], abs=1e-9)
            assert indices[place].tolist() == [row for _, row in ranked[:4]]
            near = [keys[row] for _, row in ranked[:4]]
            if kind == "euclidean":
                assert distances[place] == pytest.approx([math.dist(query, key) for key in near], abs=1e-9)
            if kind == "cosine":
                cosines = [score("cosine", 1, query, key) for key in near]
                assert distances[place] == pytest.approx([math.sqrt(2 - 2 * each) for each in cosines], abs=1e-6)
        assert (np.diff(distances) >= 0).all()

    @pytest.mark.parametrize("memory", ["chunked", "topk", "linear", "prototypes"])
    def test_every_memory(self, memory: str) -> None:
        classifier = small(memory=memory, max_iter=4, learning_rate_init=0.02).fit(X, Y)
        assert classifier.score(X, Y) > 0.6
        assert pickle.loads(pickle.dumps(classifier)).predict_proba(X).tolist() == classifier.predict_proba(X).tolist()
        if memory in ("linear", "prototypes"):
            with pytest.raises(ValueError, match=f"kneighbors: memory={memory} stores no objects"):
                classifier.kneighbors(X)
            with pytest.raises(ValueError, match=r"n_neighbors=2: .* must be None"):
                small(memory=memory, n_neighbors=2).fit(X, Y)

    def test_labels_are_of_any_kind(self) -> None:
        for labels in (Y + 7, WORDS, WORDS.astype(object), Y == 1, Y.astype(float)):
            classifier = small().fit(X, labels)
            assert classifier.classes_.tolist() == np.unique(labels).tolist()
            assert set(classifier.predict(X)) <= set(labels)
            assert classifier.predict(X).dtype == classifier.classes_.dtype

    def test_a_seed_twice_is_the_same_to_the_bit(self) -> None:
        first, again, other = (small(random_state=seed).fit(X, Y).predict_proba(X) for seed in (3, 3, 4))
        assert (first == again).all()
        assert (first != other).any()
        drawn = [small(random_state=np.random.RandomState(5)).fit(X, Y).predict_proba(X) for _ in range(2)]
        assert (drawn[0] == drawn[1]).all()

    def test_float32_stays_float32(self) -> None:
        assert small().fit(X.astype(np.float32), Y).predict_proba(X).dtype == np.float32


def nearest(classifier: MemoryClassifier, rows: NDArray[Any] | None, k: int) -> list[list[int]]:
    found: list[list[int]] = np.asarray(classifier.kneighbors(rows, k, return_distance=False)).tolist()
    return found


class TestNeighbours:
    def test_are_places_in_what_was_given(self, fitted: MemoryClassifier) -> None:
        distances, indices = fitted.kneighbors(X)
        assert indices.shape == distances.shape == (len(X), 5)
        assert distances[:, 0] == pytest.approx(0, abs=1e-9)
        assert (X[indices[:, 0]] == X).all()
        assert fitted.n_samples_fit_ == len(X)

    def test_of_the_stored_are_others(self, fitted: MemoryClassifier) -> None:
        rows = nearest(fitted, None, len(X) - 1)
        assert all(sorted([own, *row]) == list(range(len(X))) for own, row in enumerate(rows))

    def test_no_more_than_there_are(self, fitted: MemoryClassifier) -> None:
        for given, told in ((X, "n_neighbors=76: must be at most 75"), (None, "must be at most 74")):
            with pytest.raises(ValueError, match=told):
                fitted.kneighbors(given, 76)


class TestChanges:
    def test_what_is_taught_is_found_and_leaves_no_trace(self) -> None:
        fitted = small(n_neighbors=1).fit(X, WORDS)
        before = fitted.predict_proba(X)
        far = np.array([[40.0, -40, 40, -40], [-40, -40, 40, 40]])
        fitted.partial_fit(far, ["zebra", "ant"])
        assert fitted.classes_.tolist() == ["ant", "ape", "bear", "cat", "zebra"]
        assert fitted.predict(far).tolist() == ["zebra", "ant"]
        assert nearest(fitted, far, 1) == [[75], [76]]
        fitted.forget([76, 75])
        assert (fitted.predict_proba(X)[:, 1:4] == before).all()
        assert (fitted.predict_proba(X)[:, [0, 4]] == 0).all()
        fitted.partial_fit(far[:1], ["cat"])
        assert nearest(fitted, far[:1], 1) == [[77]]

    def test_copies_do_not_change_with_it(self, fitted: MemoryClassifier) -> None:
        other = pickle.loads(pickle.dumps(fitted))
        fitted.forget(np.arange(30))
        assert (other.predict_proba(X) != fitted.predict_proba(X)).any()
        assert other.n_samples_fit_ == 75

    def test_forgetting_a_class_leaves_its_column(self, fitted: MemoryClassifier) -> None:
        fitted.forget(np.flatnonzero(WORDS == "bear"))
        assert (fitted.predict_proba(X)[:, 1] == 0).all()
        assert set(fitted.predict(X)) == {"ape", "cat"}

    def test_classes_may_be_told_at_first(self) -> None:
        classifier = small().partial_fit(X, WORDS, classes=["ape", "bear", "cat", "dog"])
        assert classifier.classes_.tolist() == ["ape", "bear", "cat", "dog"]
        assert (classifier.predict_proba(X)[:, 3] == 0).all()

    def test_what_does_not_fit_is_told_and_changes_nothing(self, fitted: MemoryClassifier) -> None:
        before = fitted.predict_proba(X)
        with pytest.raises(ValueError, match="y: has labels of int64, and the classes are of <U4"):
            fitted.partial_fit(X[:2], [1, 2])
        with pytest.raises(ValueError, match="y: has the label dog, which is not among classes"):
            fitted.partial_fit(X[:2], ["dog", "ape"], classes=["ape", "bear"])
        for indices, told in (([75], "indices=75: there is no"), (range(75), "nothing would be left"), (1.5, "1.5")):
            with pytest.raises(ValueError, match=told):
                fitted.forget(indices)  # type: ignore[arg-type]
        assert (fitted.predict_proba(X) == before).all()
        with pytest.raises(NotFittedError):
            small().forget(0)


class TestSaved:
    def test_is_opened_by_load_and_the_commands(
        self, fitted: MemoryClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fitted.partial_fit(X[:1] + 9, ["lynx"]).forget([3, 4])
        fitted.save(tmp_path / "memory")
        memory = memlab.load(tmp_path / "memory")
        assert memory.classes == ("ape", "bear", "cat", "lynx")
        assert (memory.predict(X).probabilities == fitted.predict_proba(X)).all()
        assert memory.predict(X, k=5).evidence.ids[:, 0].tolist() == [row[0] for row in nearest(fitted, X, 1)]
        assert memory.predict(X[:1] + 9, k=1).evidence.sources == [["X[75]"]]
        assert memory.add(X[:1], "ape") == [76]
        np.savez(tmp_path / "rows.npz", X=X, y=WORDS)
        for words in (["predict"], ["evaluate"], ["explain", f"--html={tmp_path / 'page.html'}"]):
            assert main([words[0], str(tmp_path / "memory"), str(tmp_path / "rows.npz"), *words[1:]]) == 0
        for command in (["info"], ["audit"], ["forget", "--ids", "0"], ["relabel", "--ids", "1", "--label", "cat"]):
            assert main([command[0], str(tmp_path / "memory"), *command[1:]]) == 0
        capsys.readouterr()
        with pytest.raises(ValueError, match="must be a new or an empty folder"):
            fitted.save(tmp_path / "memory")

    def test_pictures(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        digits = load_digits()
        pixels = (digits.data[:200] * 15).astype(np.uint8)
        words: dict[str, Any] = {"encoder": "conv", "image_shape": (1, 8, 8), "max_iter": 2, "embedding_size": 8}
        classifier = MemoryClassifier(**words).fit(pixels, digits.target[:200])
        assert classifier.predict_proba(pixels[:5].astype(float)) == pytest.approx(classifier.predict_proba(pixels[:5]))
        classifier.save(tmp_path / "memory")
        Image.fromarray(pixels[7].reshape(8, 8)).save(tmp_path / "seven.png")
        assert main(["predict", str(tmp_path / "memory"), str(tmp_path / "seven.png"), "--json"]) == 0
        (told,) = json.loads(capsys.readouterr().out)
        (mass,) = classifier.predict_proba(pixels[7:8])
        assert list(told["probabilities"].values()) == pytest.approx(mass.tolist())
        with pytest.raises(ValueError, match=r"image_shape=\(1, 9, 8\): must be .* of the 64 pixels"):
            MemoryClassifier(**{**words, "image_shape": (1, 9, 8)}).fit(pixels, digits.target[:200])
        with pytest.raises(ValueError, match=r"^image_shape=\(64,\): must be \(channels, height, width\)"):
            MemoryClassifier(encoder="conv").fit(digits.data[:50], digits.target[:50])


class TestWithScikitLearn:
    def test_a_grid_over_encoder_neighbours_and_scale(self) -> None:
        model = make_pipeline(StandardScaler(), small())
        grid = {
            "memoryclassifier__encoder": ["linear", "mlp"],
            "memoryclassifier__n_neighbors": [None, 3],
            "memoryclassifier__scale": [0.1, 1.0],
        }
        model.set_params(memoryclassifier__hidden_layer_sizes=None)
        search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, WORDS)
        assert set(search.best_params_) == set(grid)
        assert len({*search.cv_results_["mean_test_score"]}) > 1
        assert search.predict(X).shape == (75,)

    def test_threads_do_not_get_in_each_others_way(self) -> None:
        alone = [small(random_state=seed).fit(X, Y).predict_proba(X) for seed in range(2)]
        fits = [delayed(small(random_state=seed).fit)(X, Y) for seed in range(2)]
        together = [each.predict_proba(X) for each in Parallel(n_jobs=2, backend="threading")(fits)]
        assert all((one == two).all() for one, two in zip(alone, together, strict=True))
        assert len(cross_val_score(small(), X, Y, cv=2)) == 2

    def test_names_of_columns(self) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, columns=list("abcd"))
        classifier = clone(small()).fit(frame, pandas.Series(WORDS))
        assert classifier.feature_names_in_.tolist() == list("abcd")
        assert (classifier.predict_proba(frame) == small().fit(X, WORDS).predict_proba(X)).all()
        for method in (classifier.predict, classifier.kneighbors, lambda rows: classifier.partial_fit(rows, WORDS)):
            with pytest.raises(ValueError, match="feature names"):
                method(frame.rename(columns={"a": "z"}))


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "encoder": ({"encoder": "cnov"}, "encoder=cnov: must be one of bag, conv, "),
    "memory": ({"memory": 3}, "memory=3: must be the name of an option"),
    "neighbours": ({"n_neighbors": 0}, "n_neighbors=0: must be a whole number of at least 1"),
    "neighbours of topk": ({"n_neighbors": 1.5, "memory": "topk"}, "n_neighbors=1.5: must be a whole number"),
    "scale": ({"scale": -1}, "scale=-1: must be a number above 0"),
    "embedding": ({"embedding_size": 0}, "embedding_size=0: must be a whole number of at least 1"),
    "layers": ({"encoder": "linear"}, r"hidden_layer_sizes=\(16,\): there is no such parameter with encoder=linear"),
    "rate": ({"learning_rate_init": 0}, "learning_rate_init=0: must be a number above 0"),
    "batch": ({"batch_size": 75}, "batch_size=75: must be below 75"),
    "epochs": ({"max_iter": 0}, "max_iter=0: must be a whole number of at least 1"),
    "held out": ({"validation_fraction": 1.5}, "validation_fraction=1.5: must be a number of at least 0 and below 1"),
    "device": ({"device": "abacus"}, "device=abacus: must be one of auto, cpu"),
    "seed": ({"random_state": -1}, "random_state=-1: must be a whole number of at least 0"),
    "misspelt": ({"settings": {"optimizer.weight_dacey": 1}}, "settings: .*did you mean optimizer.weight_decay"),
    "out of range": (
        {"settings": {"encoder.dropout": 2}},
        "settings: encoder.dropout=2: must be a number of at least 0",
    ),
    "layer": (
        {"settings": {"memory.hops": 1, "memory.answer": "layer"}},
        "settings: memory.answer=layer: must be read here; a layer knows the classes of training alone",
    ),
    "twice": ({"settings": {"encoder": "mlp"}}, "settings: encoder has a parameter of its own"),
    "neighbours twice": ({"settings": {"evaluation.k": 3}, "n_neighbors": 3}, "settings: evaluation.k is what n_neigh"),
    "of a folder": ({"settings": {"logger": "csv"}}, "settings: logger is of a run that leaves a folder"),
    "diverges": ({"learning_rate_init": 1e30}, "train/loss=.*: must stay finite"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_in_the_words_of_the_estimator(mistake: str) -> None:
    words, told = MISTAKES[mistake]
    with pytest.raises(ValueError, match=f"^{told}") as error:
        small(**words).fit(X, Y)
    assert len(str(error.value).splitlines()) == 1


class TestSettings:
    def test_reach_what_has_no_parameter(self) -> None:
        settings = {
            "data.flip_labels": 0.5,
            "optimizer": "sgd",
            "optimizer.momentum": 0.5,
            "scheduler.factor.warmup": 0.1,
        }
        changed = small(settings=settings).fit(X, Y)
        assert (changed.predict_proba(X) != small().fit(X, Y).predict_proba(X)).any()
        assert (np.array(changed._memory.objects.labels) != Y.astype(str)).mean() == pytest.approx(0.5, abs=0.01)

    def test_hops_are_in_what_is_fitted(self) -> None:
        classifier = small(settings={"memory.hops": 2}, learning_rate_init=0.01, max_iter=4).fit(X, WORDS)
        hops = classifier._memory.model.hops
        assert hops is not None
        assert hops.hops.class_values.abs().max() > 0
        again = pickle.loads(pickle.dumps(classifier))
        assert (again.predict_proba(X) == classifier.predict_proba(X)).all()

    def test_what_is_not_given_is_what_the_files_say(self) -> None:
        model = MemoryClassifier(max_iter=1).fit(X, Y)._memory.model
        (encoder,) = [(conf_folder() / "encoder" / "mlp.yaml").read_text()]
        assert f"embedding_size: {model.recipes['encoder']['arguments']['embedding_size']}\n" in encoder
        assert f"hidden_sizes: {model.recipes['encoder']['arguments']['hidden_sizes']}\n" in encoder


def state() -> dict[str, Any]:
    """What a process has one of."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "random": random.getstate(),
        "environment": dict(os.environ),
        "levels": [logging.getLogger(name).level for name in ("", "pytorch_lightning", "lightning_fabric", "memlab")],
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "hydra": (GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
    }


class TestLeavesNothingBehind:
    @pytest.mark.parametrize("words", [{}, {"validation_fraction": 0.2}, {"max_iter": 0}, {"learning_rate_init": 1e30}])
    def test_in_the_process_or_in_the_folder(
        self,
        words: dict[str, Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        recwarn: pytest.WarningsRecorder,
    ) -> None:
        small().fit(X, Y)  # what is imported for the first time may have its say
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        recwarn.clear()
        before = state()
        try:
            small(**words).fit(X, Y).predict(X)
        except ValueError:
            assert words
        assert state() == before
        assert capfd.readouterr() == ("", "")
        assert not recwarn.list
        assert not list(tmp_path.iterdir())

    def test_in_a_hydra_application(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_text("theirs: 3\n")
        with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
            HydraConfig.instance().set_config(hydra.compose("config", return_hydra_config=True))
            before = state(), hydra.version.getbase()
            small().fit(X, Y)
            assert (state(), hydra.version.getbase()) == before
            assert hydra.compose("config") == {"theirs": 3}
        HydraConfig.instance().cfg = None

    def test_an_interruption_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = state()
        with monkeypatch.context() as patch:
            patch.setattr("memlab.training.module.MemoryClassifier.training_step", interrupt)
            with pytest.raises(KeyboardInterrupt):
                small().fit(X, Y)
        assert state() == before


def test_every_package_and_the_groups_are_installed() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {
        ".".join(file.parent.relative_to(REPOSITORY).parts) for file in (REPOSITORY / "memlab").rglob("__init__.py")
    }
    assert set(project["packages"]) == packages | {"memlab.conf"}
    assert project["package-dir"] == {"memlab.conf": "conf"}
    found = {file for glob in project["package-data"]["memlab.conf"] for file in (REPOSITORY / "conf").glob(glob)}
    assert found == {file for file in (REPOSITORY / "conf").rglob("*") if file.is_file()}


def test_a_data_frame_of_words_and_missing_cells_is_learned_by_its_columns(tmp_path: Path) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    rows = files_of_tables.rows(300)
    y = [row.pop("class") for row in rows]
    frame = pandas.DataFrame(rows)
    frame["age"] = pandas.to_numeric(frame["age"], errors="coerce")
    frame["since"] = pandas.to_datetime(frame["since"])
    frame["job"] = frame["job"].replace("", None).astype("category")
    frame["member"] = frame["member"] == "yes"
    fitted = memlab.MemoryClassifier("table", max_iter=8, random_state=0).fit(frame, y)
    assert list(fitted.feature_names_in_) == ["age", "job", "member", "since"]
    assert fitted.score(frame, y) > 0.85
    answers = fitted.predict(frame)
    assert (fitted.predict(polars.DataFrame(rows)) == answers).all()  # as words of a file
    new = frame.head(2).astype({"job": object})
    new["job"] = "astronaut"
    assert fitted.predict_proba(new).sum(axis=1) == pytest.approx(1)
    fitted.save(tmp_path / "memory")
    assert memlab.load(tmp_path / "memory").predict(frame).labels == list(answers)
    fitted.partial_fit(new, ["high", "low"])
    assert fitted.n_samples_fit_ == 302
    for wrong, told in (
        (frame.drop(columns="job"), "feature names"),
        (frame.to_numpy(), "X: of type ndarray; must be a"),
    ):
        with pytest.raises(ValueError, match=told):
            fitted.predict(wrong)
    with pytest.warns(UserWarning, match="column age has 300 cells|column age has 1 cells"):
        fitted.predict(frame.astype({"age": object}).assign(age=["old", *[30] * 299]))
    with pytest.raises(ValueError, match="no column that tells rows apart"):
        memlab.MemoryClassifier("table").fit(pandas.DataFrame({"a": [1] * 20}), [0, 1] * 10)
