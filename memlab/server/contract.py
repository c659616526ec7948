"""What is asked of the server, and what it answers: the schemas of /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

LabelText = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Strict(BaseModel):
    """An object that has these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Inputs(Strict):
    """Objects to be classified: rows of numbers or of a table by name or in order, raw arrays of pictures, texts."""

    inputs: list[Any] = Field(min_length=1)


class Examples(Strict):
    """Objects to be taken in, and the class of each, or one for all."""

    inputs: list[Any] = Field(min_length=1)
    labels: LabelText | list[LabelText]


class Label(Strict):
    """The class that an object is to have."""

    label: LabelText


class Refusal(Strict):
    """Why a request is refused."""

    error: str = Field(description="one line")


class Piece(Strict):
    """A stored object that weighed in an answer."""

    id: int
    label: str
    weight: float = Field(description="its share of the read; those of all stored objects sum to 1")
    source: str = Field(description="where it is from")


class Read(Strict):
    """What the memory says of an object, and why."""

    label: str
    probabilities: dict[str, float] = Field(description="of each class")
    evidence: list[Piece] = Field(description="the objects that weighed most, strongest first")
    hops: list[list[Piece]] | None = Field(None, description="the same of each hop before; of a memory with hops")
    novelty: float = Field(description="how far the object is from everything stored, in nats")
    credibility: float | None = Field(
        description="small if no class fits; null without calibration objects, and until they are read after a change"
    )


class Row(Read):
    """An answer to an object that was given."""

    name: str = Field(description="of the upload, or the place among the inputs; told back only")
    without_strongest: str = Field(description="the label if the strongest object were not stored")
    set: list[str] | None = Field(None, description="classes that hold the truth as often as coverage says; if asked")


class Answers(Strict):
    """Answers, and the memory that gave them."""

    answers: list[Row]
    digest: str


class Added(Strict):
    """What was taken in."""

    ids: list[int]
    digest: str


class Example(Strict):
    """A stored object."""

    id: int
    label: str
    source: str


class ExampleWithPicture(Example):
    """A stored object, and whether its picture is kept."""

    picture: bool


class Page(Strict):
    """Some of the stored objects, by id."""

    total: int = Field(description="that fit, on all pages")
    examples: list[Example]
    next: int | None = Field(description="after which the next page begins; null on the last")


class Relabelled(Strict):
    """A label that was changed."""

    id: int
    before: str
    label: str
    digest: str


class Receipt(Strict):
    """What was forgotten."""

    ids: list[int]
    digest_before: str
    digest_after: str
    not_undone: list[str]


class Health(Strict):
    """That the server answers, and with what."""

    status: str
    objects: int
    digest: str


class Journal(Strict):
    """Who changed what, and when; the newest first."""

    changes: list[dict[str, Any]]


class Doubt(Strict):
    """A label that looks wrong."""

    id: int
    label: str
    own_mass: float
    suggested: str
    suggested_mass: float
    source: str
    evidence: list[Piece]


class Duplicate(Strict):
    """Two objects that are nearly the same."""

    ids: tuple[int, int]
    labels: tuple[str, str]
    distance: float = Field(description="over the median distance to the nearest other")


class OfClass(Strict):
    """How a class holds together."""

    name: str
    objects: int
    own_mass: float
    answered: float


class Audit(Strict):
    """Labels that look wrong, objects stored twice, classes; the worst first."""

    objects: int
    suspicious: int
    labels: list[Doubt]
    duplicates: list[Duplicate]
    classes: list[OfClass]
    digest: str


class Progress(Strict):
    """How far the audit under way is."""

    running: bool
    done: int
    total: int


class Point(Strict):
    """A stored object in the plane."""

    id: int
    label: str
    x: float
    y: float


class Map(Strict):
    """Stored objects in the plane."""

    method: str
    points: list[Point]
    shown: int
    total: int
    digest: str
