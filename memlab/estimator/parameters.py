"""The parameters of the estimator in the words of the command line, and mistakes in those of the estimator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from sklearn.utils import check_random_state

from memlab.checks import check_number
from memlab.runs.words import word_of

PLACES = {
    "encoder": "encoder",
    "memory": "memory",
    "similarity": "similarity",
    "scale": "similarity.scale",
    "embedding_size": "encoder.embedding_size",
    "hidden_layer_sizes": "encoder.hidden_sizes",
    "learning_rate_init": "optimizer.lr",
    "batch_size": "datamodule.batch_size",
    "max_iter": "trainer.max_epochs",
    "validation_fraction": "datamodule.validation_fraction",
    "device": "trainer.accelerator",
    "random_state": "seed",
    "verbose": "trainer.enable_progress_bar",
}
"""Where a parameter of the estimator stands in the configuration."""
OPTIONS = {"encoder": "mlp", "memory": "full", "similarity": "euclidean"}
"""Parameters that choose an option of a group, and one that there is."""
NEIGHBOURS = ("memory.k", "evaluation.k", "evaluation")
"""Where ``n_neighbors`` does."""
OF_A_FOLDER = ("baselines", "callbacks", "ckpt_path", "data", "evidence", "experiment", "figures", "hydra", "logger")
"""What a run that leaves a folder has, and a fit has no use for; but options of every data set."""


def words_of(parameters: Mapping[str, Any]) -> list[str]:
    """What is to be otherwise than in ``conf/estimator.yaml``, as on the command line.

    Args:
        parameters: of the estimator, by name; None is left as it is there.

    Raises:
        ValueError: for what is given twice, or is of no use.
    """
    given = {place: parameters[name] for name, place in PLACES.items() if parameters[name] is not None}
    for name in OPTIONS:
        if not isinstance(parameters[name], str | None):
            raise ValueError(f"{name}={parameters[name]}: must be the name of an option, as {OPTIONS[name]}")
    if parameters["learning_rate_init"] is not None:
        check_number("learning_rate_init", parameters["learning_rate_init"], above=0)
    if "seed" in given and not isinstance(given["seed"], Integral):
        given["seed"] = check_random_state(given["seed"]).randint(2**31 - 1)
    if (k := parameters["n_neighbors"]) is not None:
        given |= {"memory.k": k} if parameters["memory"] == "topk" else {"evaluation": "topk", "evaluation.k": k}
    settings = parameters["settings"] or {}
    for name in settings:
        _check_setting(name.lstrip("+~"), parameters)
    return [f"{place}={word_of(value)}" for place, value in (given | dict(settings)).items()]


def in_our_words(message: str, parameters: Mapping[str, Any]) -> str:
    """A mistake, told with the name of the parameter in the place of that in the configuration."""
    found = re.match(r"[\w./]+", message)
    place = found[0] if found else ""
    ours = {there: name for name, there in PLACES.items()} | {"encoder.input_shape": "image_shape"}
    if parameters["n_neighbors"] is not None:
        ours |= dict.fromkeys(NEIGHBOURS, "n_neighbors")
    if place not in ours:
        return f"settings: {message}" if place in (parameters["settings"] or {}) else message
    name = ours[place]
    if "there is no such parameter" in message:
        others = f"encoder={parameters['encoder']}, memory={parameters['memory']}"
        return f"{name}={parameters[name]}: there is no such parameter with {others}; must be None"
    return f"{name}{message.removeprefix(place)}"


def _check_setting(name: str, parameters: Mapping[str, Any]) -> None:
    if own := next((parameter for parameter, place in PLACES.items() if place == name), None):
        raise ValueError(f"settings: {name} has a parameter of its own; give it as {own}")
    if name in NEIGHBOURS and (k := parameters["n_neighbors"]) is not None:
        raise ValueError(f"settings: {name} is what n_neighbors={k} sets; give one of them")
    if re.split(r"[./@]", name)[0] in OF_A_FOLDER and not name.startswith("data."):
        raise ValueError(f"settings: {name} is of a run that leaves a folder, a fit has no use for it; leave it out")
