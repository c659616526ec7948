"""The picture and the file of how far back a gradient goes in what a run has trained."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from memlab.data.sequences import Sequences
from memlab.encoders.gradient_growth import STEPS, WEIGHTS, growth_of_encoder, growth_of_weight
from memlab.files import named_in_errors, written_whole
from memlab.runs.assembly import Run
from memlab.trained.recipes import ENCODERS, build

FILE = "gradients.csv"
SEQUENCES = 16
"""By which the gradients of an encoder are measured."""


def measured_growth(run: Run) -> dict[str, Tensor]:
    """How the gradient of a step grows with the steps behind it, of fixed weights, and of the encoder of a run.

    The encoder reads training objects one after the other, so that sequences are long enough, as it was trained, and as
    another start was before. Nothing for an encoder without recurrent layers.
    """
    store, recipe = run.datamodule.store, run.encoder_recipe
    if not isinstance(store.inputs, Sequences) or recipe["class"] not in ENCODERS:
        return {}
    rows = run.datamodule.train_rows[torch.randperm(len(run.datamodule.train_rows), generator=_seed())]
    steps, wanted = store.inputs.lengths[rows.to(store.inputs.device)].cumsum(0), SEQUENCES * (STEPS + 1)
    enough = int((steps < wanted).sum()) + 1
    taken = store.take(rows[:enough], dtype=torch.float64).cpu()
    flat = taken[~taken.isnan().all(-1)] if taken.is_floating_point() else taken.flatten(0, 1)
    count = min(len(flat) // (STEPS + 1), SEQUENCES) or 1
    sequences = flat[: count * (STEPS + 1)].view(count, -1, flat.shape[1])
    trained = growth_of_encoder(run.model.encoder, sequences)
    if trained is None:
        return {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = growth_of_encoder(build(recipe, ENCODERS, name="encoder"), sequences)
    assert untrained is not None
    fixed = {f"weight {weight}": growth_of_weight(weight) for weight in WEIGHTS}
    return {**fixed, "before training": untrained, "trained": trained}


def write_growth(found: Mapping[str, Tensor], target: Path) -> None:
    """A row for each number of steps, a column for each of what was measured."""
    longest = max(map(len, found.values()))
    with written_whole(target) as file:
        writer = csv.writer(file)
        writer.writerow(["steps", *found])
        for step in range(longest):
            writer.writerow([step, *(f"{each[step]:.6g}" if step < len(each) else "" for each in found.values())])


def draw_growth(found: Mapping[str, Tensor], target: Path, *, title: str) -> None:
    """The same, on a scale of powers of ten."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, growth in found.items():
        fixed = name.startswith("weight")
        axes.plot(growth.numpy(), label=name, linestyle=":" if fixed else "-", linewidth=1.2 if fixed else 2)
    axes.set_yscale("log")
    axes.set(xlabel="steps back", ylabel="gradient, over that of the last step")
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend()
    with named_in_errors(target):
        figure.savefig(target, dpi=130, bbox_inches="tight")


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)
