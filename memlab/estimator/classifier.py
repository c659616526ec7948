"""scikit-learn's contract: ``fit`` trains, ``predict`` reads the trained memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from memlab.checks import check_whole_number
from memlab.estimator.parameters import in_our_words, words_of

if TYPE_CHECKING:  # torch, Lightning and Hydra come in when something is fitted
    from torch import Tensor

    from memlab.data.columns import Columns
    from memlab.trained.unsaved import UnsavedMemory

SHOWN = 5
"""Neighbours that `kneighbors` gives if nothing is said, as scikit-learn's does."""


class MemoryClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A differentiable nearest-neighbour classifier with scikit-learn's contract.

    An encoder u = f(x) is trained so that the softmax of the similarities z between an object and the stored ones gives
    its class: the mass of class c is ``sum_i exp(z_i) [y_i = c] / sum_i exp(z_i)``, and by default
    ``z_i = -scale |f(x) - f(x_i)|^2`` with a learned scale. All objects given to `fit` are stored, those held out for
    validation too. Features are standardised one by one.

    A parameter that is None is what ``conf/`` says, where ``estimator.yaml`` is what a fit starts from; it means what
    ``python train.py`` means by it.

    Args:
        encoder: f: ``mlp``, ``linear``, ``table`` (X may be a data frame of pandas or polars, of numbers, words, dates
            and missing cells), or ``identity`` (no encoder, only the scale is learned); with ``image_shape`` also
            ``conv``, ``lenet``, ``resnet``, ``resnet_small``, ``torchvision``.
        memory: how stored objects are read in training: ``full``, ``chunked`` (the same with less memory), ``topk``
            (the nearest alone); to compare with, ``linear`` and ``prototypes``, which store one key for each class.
        similarity: ``euclidean``, ``distance``, ``cosine`` or ``dot``.
        n_neighbors: K, the nearest stored objects that an answer is read from, and with ``memory="topk"`` those read
            in training too; None for all objects, or with ``topk`` what ``conf/memory/topk.yaml`` says.
        scale: factor of the similarity, above 0; where it is learned, at the start. Large, and the nearest decides
            alone.
        embedding_size: numbers in an embedding u.
        hidden_layer_sizes: width of each hidden layer of the ``mlp``.
        learning_rate_init: learning rate of the first step.
        batch_size: objects whose loss is computed in a step; ``"auto"`` for 256, but a quarter of a small training set.
        max_iter: epochs; None for about 2,000 steps, but 30 epochs at most.
        validation_fraction: share of the objects, class by class, that the weights of the best epoch are chosen by; 0
            for the weights of the last one; ``"auto"`` for a tenth of 100 objects or more.
        image_shape: (channels, height, width) of images, whose pixels are the rows of X, as ``images.reshape(n, -1)``;
            uint8 pixels stay what they are. None for features.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"gpu"``, ``"cuda"`` or ``"mps"``.
        random_state: seed of weights, order, supports and dropout: equal seeds, equal results on a CPU. None for the
            seed in ``conf/``; a ``RandomState`` is drawn from. The objects held out follow ``datamodule.split_seed``.
        verbose: show the progress of training.
        settings: anything else that ``python train.py`` takes, by its name there, as
            ``{"optimizer.weight_decay": 0.1, "scheduler": "constant"}``.

    Attributes:
        classes_: (C,) the labels, ascending, in the order of `predict_proba`.
        n_iter_: epochs of the training.
        n_samples_fit_: objects stored.
        n_features_in_: columns of X.
        feature_names_in_: their names, if X has some.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MemoryClassifier(max_iter=20, hidden_layer_sizes=(32,)).fit(X, y)
    >>> classifier.score(X, y) > 0.9
    True
    """

    classes_: NDArray[Any]
    n_iter_: int
    _memory: UnsavedMemory
    _columns: Columns | None = None

    def __init__(
        self,
        encoder: str = "mlp",
        *,
        memory: str | None = None,
        similarity: str | None = None,
        n_neighbors: int | None = None,
        scale: float | None = None,
        embedding_size: int | None = None,
        hidden_layer_sizes: Sequence[int] | None = None,
        learning_rate_init: float | None = None,
        batch_size: int | str | None = None,
        max_iter: int | None = None,
        validation_fraction: float | str | None = None,
        image_shape: tuple[int, int, int] | None = None,
        device: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.encoder = encoder
        self.memory = memory
        self.similarity = similarity
        self.n_neighbors = n_neighbors
        self.scale = scale
        self.embedding_size = embedding_size
        self.hidden_layer_sizes = hidden_layer_sizes
        self.learning_rate_init = learning_rate_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.validation_fraction = validation_fraction
        self.image_shape = image_shape
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.settings = settings

    def fit(self, X: ArrayLike, y: ArrayLike) -> MemoryClassifier:  # noqa: N803
        """Train, and store all objects.

        Args:
            X: (n, F) features, or pixels of images; float32 stays float32, and answers are computed in the same. With
                ``encoder="table"`` also a data frame, whose columns are known by name from then on.
            y: (n,) labels: numbers, words or booleans, of two classes or more.

        Raises:
            ValueError: for data that cannot be learned from, or a parameter out of range.
        """
        import torch

        from memlab.data.datasets import LabelledData
        from memlab.data.objects import ObjectStore
        from memlab.runs.in_memory import learn

        inputs, labels = self._labelled(X, y, reset=True)
        parameters = self.get_params(deep=False)
        words = words_of(parameters)
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y: the labels are of 1 class, {classes[0]}; must be of two classes or more")
        store = ObjectStore(
            inputs=inputs,
            labels=torch.from_numpy(numbers).long(),
            class_names=_names(classes),
            columns=self._columns,
        )
        rows = torch.arange(len(store))
        try:
            memory, epochs = learn(LabelledData("arrays", store, rows, rows[:0], _source), words)
        except ValueError as error:
            raise ValueError(in_our_words(str(error), parameters)) from error
        if self.n_neighbors is not None and not memory.reads_objects:
            raise ValueError(f"n_neighbors={self.n_neighbors}: memory={self.memory} stores no objects; must be None")
        self.classes_, self.n_iter_, self._memory = classes, epochs, memory
        return self

    def partial_fit(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        classes: ArrayLike | None = None,
    ) -> MemoryClassifier:
        """Fit if this is the first call; afterwards store more objects, of new classes too, without any training.

        Unlike scikit-learn's own, the first call need not be told of all classes.

        Args:
            X: (n, F) features.
            y: (n,) labels.
            classes: labels that `classes_` is to have, those of y among them, whether there are objects of them or not;
                None for those of all objects so far.

        Raises:
            ValueError: for data that do not fit, a label that is not in ``classes``, or a memory that stores no
                objects.
        """
        first = not self.__sklearn_is_fitted__()
        inputs, labels = self._labelled(X, y, reset=first)
        declared = np.unique(labels if classes is None else np.asarray(classes))
        if len(_all(declared, labels)) > len(declared):
            raise ValueError(f"y: has the label {np.setdiff1d(labels, declared)[0]}, which is not among classes")
        if first:
            self.fit(X, y)
            self.classes_ = _all(self.classes_, declared)
            return self
        self._check_reads_objects("partial_fit")
        known = _all(self.classes_, declared)
        self._memory, self.classes_ = self._memory.with_more(inputs, _names(labels), _source), known
        return self

    def forget(self, indices: int | Sequence[int] | NDArray[np.int64]) -> MemoryClassifier:
        """Take objects out of the memory: what is answered then is what it would answer had it never stored them.

        The encoder's weights stay as they were trained. A class of which nothing is left keeps its column of
        `predict_proba`, with probability 0.

        Args:
            indices: of the objects, as `kneighbors` tells them.

        Raises:
            ValueError: for objects that there are not, or if nothing would be left.
        """
        import torch

        check_is_fitted(self)
        self._check_reads_objects("forget")
        given = np.atleast_1d(np.asarray(indices)).tolist()
        gone = torch.tensor([check_whole_number("indices", each, minimum=0) for each in given], dtype=torch.int64)
        if len(missing := gone[~torch.isin(gone, self._memory.objects.ids)]):
            raise ValueError(f"indices={int(missing[0])}: there is no such object")
        if len(gone.unique()) == len(self._memory):
            raise ValueError("indices: nothing would be left; must leave one object")
        self._memory = self._memory.without(gone)
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """(n,) the label with the largest probability."""
        answers = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[answers]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """(n, C) class mass, in the order of `classes_`; computed in the type of the X of `fit`."""
        check_is_fitted(self)
        masses = self._memory.probabilities(self._inputs(X)).numpy()
        places = {name: place for place, name in enumerate(_names(self.classes_))}
        found = np.zeros((len(masses), len(self.classes_)), masses.dtype)
        found[:, [places[name] for name in self._memory.present]] = masses
        return found

    def kneighbors(
        self,
        X: ArrayLike | None = None,  # noqa: N803
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> tuple[NDArray[Any], NDArray[np.int64]] | NDArray[np.int64]:
        """The stored objects nearest to each object by the learned similarity, nearest first.

        Args:
            X: (n, F) features; None for the stored objects in their order, each of which is not its own neighbour.
            n_neighbors: how many; None for those of the constructor, or 5.
            return_distance: whether distances are given too.

        Returns:
            (n, k) Euclidean distances of the embeddings (of embeddings of length 1 if the similarity is ``cosine``; for
            ``dot`` see `memlab.memory.similarity.Similarity.points`), and (n, k) indices: places in the X of `fit`; the
            objects of later calls of `partial_fit` go on counting, and `forget` leaves the others what they are.

        Raises:
            ValueError: for more neighbours than there are objects, or a memory that stores none.
        """
        check_is_fitted(self)
        self._check_reads_objects("kneighbors")
        available = len(self._memory) - (X is None)
        wanted = n_neighbors if n_neighbors is not None else self.n_neighbors
        k = min(SHOWN, available) if wanted is None else check_whole_number("n_neighbors", wanted)
        if k > available:
            raise ValueError(f"n_neighbors={k}: must be at most {available}, the objects that there are to find")
        found = self._memory.neighbours(None if X is None else self._inputs(X), k=k)
        indices: NDArray[np.int64] = found.ids.numpy()
        return (found.distances.numpy(), indices) if return_distance else indices

    def save(self, folder: str | Path) -> None:
        """Write a trained memory into a new or empty folder, for `memlab.load` and the commands.

        It answers as the estimator does, and knows labels as words. Objects go by their indices. It has no calibration
        objects, as all that were given are stored: `memlab.trained.TrainedMemory.calibrate` takes others.

        Raises:
            ValueError: if there is something in the folder, or a part of the model is no class of memlab.
        """
        from memlab.runs.trained_memory import unknown_part

        check_is_fitted(self)
        if unknown := unknown_part(self._memory.model):
            raise ValueError(f"no trained memory is kept with {unknown}")
        self._memory.save(Path(folder))

    @property
    def n_samples_fit_(self) -> int:
        """Objects stored."""
        return len(self._memory)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_memory")

    def _labelled(self, X: ArrayLike, y: ArrayLike, *, reset: bool) -> tuple[Tensor, NDArray[Any]]:  # noqa: N803
        if reset:
            self._columns = None
        if not self._is_table(X):
            inputs, labels = validate_data(self, X, y, dtype=self._dtypes, reset=reset)
            check_classification_targets(labels)
            return self._raw(inputs), labels
        from memlab.runs.in_memory import columns_of

        validate_data(self, X, reset=reset, skip_check_array=True)
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        check_consistent_length(X, labels)
        if reset:
            self._columns = columns_of(X, _names(labels))
        return self._rows(X), labels

    def _inputs(self, X: ArrayLike) -> Tensor:  # noqa: N803
        if not self._is_table(X):
            return self._raw(validate_data(self, X, dtype=self._dtypes, reset=False))
        validate_data(self, X, reset=False, skip_check_array=True)
        return self._rows(X)

    def _is_table(self, X: object) -> bool:  # noqa: N803
        """Whether columns are to be known by name: of a data frame, with the encoder for them.

        Raises:
            ValueError: for another kind of X than was given to `fit`.
        """
        given = self.encoder == "table" and hasattr(X, "columns") and self.image_shape is None
        if self._columns is not None and not given:
            raise ValueError(f"X: of type {type(X).__name__}; must be a data frame, as that given to fit")
        return given

    def _rows(self, X: Any) -> Tensor:  # noqa: N803
        """(n, F) values of a data frame, NaN where one is missing; what cannot be read is told."""
        from memlab.data.frames import frame_of

        assert self._columns is not None
        rows, notes = self._columns.rows(frame_of(X), name="X")
        for note in notes:
            warnings.warn(note, stacklevel=4)
        return rows

    @property
    def _dtypes(self) -> list[type]:
        return [np.float64, np.float32, *([] if self.image_shape is None else [np.uint8])]

    def _raw(self, inputs: NDArray[Any]) -> Tensor:
        """(n, F) or, of images, (n, channels, height, width), of one's own."""
        import torch

        rows = torch.tensor(inputs)
        if self.image_shape is None:
            return rows
        shape = tuple(check_whole_number("image_shape", side) for side in self.image_shape)
        if len(shape) != 3 or math.prod(shape) != inputs.shape[1]:
            raise ValueError(
                f"image_shape={self.image_shape}: must be (channels, height, width) of the {inputs.shape[1]} pixels in"
                " a row of X"
            )
        return rows.view(-1, *shape)

    def _check_reads_objects(self, method: str) -> None:
        if not self._memory.reads_objects:
            raise ValueError(f"{method}: memory={self.memory} stores no objects; must be full, chunked or topk")


def _names(labels: NDArray[Any]) -> tuple[str, ...]:
    """What the memory calls some labels."""
    return tuple(map(str, labels.tolist()))


def _all(known: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """The different labels of both, ascending.

    Raises:
        ValueError: if the ones are words and the others numbers, or something like that.
    """
    first, second = ("words" if labels.dtype.kind in "OUS" else labels.dtype.kind for labels in (known, others))
    if first != second:
        raise ValueError(f"y: has labels of {others.dtype}, and the classes are of {known.dtype}; must be of one kind")
    return np.union1d(known, others)


def _source(index: int) -> str:
    return f"X[{index}]"
