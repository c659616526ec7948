"""What is measured, and how large it is; nothing heavy is imported to say so."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OWN = "memlab"
"""Begins the names of contenders of our own."""

INPUT_SHAPES: dict[str, tuple[int, ...]] = {
    "linear": (32,),
    "mlp": (64,),
    "table": (40,),
    "conv": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "lstm": (50, 32),
}
"""Encoders of a step, and the shape of the objects that each takes; sequences are of 5 to 50 steps."""
SHORTEST = 5
"""Steps of a sequence."""

TASKS = {
    "read": "reading M keys that are at hand, forward and backward",
    "step": "a training step: encoding M support objects and reading them, forward and backward",
    "evaluation": "class mass of B queries over M stored keys, without gradient",
    "search": "the K nearest of M stored keys, in C clusters of 8 inner dimensions, for B queries",
    "world": "a training step whose support is shared out over processes, --world 1,2,4",
    "audit": "telling wrong labels from right ones in the memory of a run with data.flip_labels, --run RUN",
    "fit": "a step of python train.py on digits, as it is typed, beside a loop written by hand",
    "start": "a command from being typed to its answer, of those that compute nothing",
}
WHOLE_COMMANDS = {"fit", "start"}
"""Tasks whose contenders are commands; they have no M, and their memory is not measured."""


@dataclass(frozen=True)
class Problem:
    """The size of what is measured.

    Args:
        task: one of `TASKS`.
        support: M; 0 for whole commands.
        batch: B.
        embedding: D.
        classes: C.
        nearest: K, of a search and of a step that reads the nearest cells.
        encoder: one of `INPUT_SHAPES`, for a step.
        device: where it is computed.
        seed: of the data and of the encoder.
        dtype: name of the floating type.
        run: folder of a run, for an audit.
    """

    task: str
    support: int
    batch: int
    embedding: int
    classes: int
    nearest: int
    encoder: str
    device: str
    seed: int = 0
    dtype: str = "float32"
    run: str = ""

    @property
    def name(self) -> str:
        """What it is, in a word or two."""
        return f"{self.task}, M = {self.support:,}" if self.support else self.task

    def of_size(self, support: int) -> Problem:
        """The same with another M."""
        return Problem(**{**asdict(self), "support": support})
