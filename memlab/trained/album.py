"""The pictures of a page, in the page itself; or what stands in the columns of rows."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from memlab.trained.memory import TrainedMemory

EXACT, LARGEST = 32, 96
"""Pictures of at most so many pixels a side are shown to the bit; larger ones are JPEG, of at most so many."""


class Album:
    """The pictures of a page, each of which is in it once, however often it is shown.

    Args:
        picture: gives the (channels, height, width) uint8 image of a name, or None if there is none.
        columns: names of those of a table, whose rows have no pictures.
        cells: gives the cells of a name in words, or None.
    """

    def __init__(
        self,
        picture: Callable[[str], Tensor | None],
        *,
        columns: Sequence[str] = (),
        cells: Callable[[str], Sequence[str] | None] = lambda _: None,
    ) -> None:
        self._picture = picture
        self.columns = columns
        self.cells = cells
        self._shown: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a picture has been shown."""
        return name in self._shown

    @classmethod
    def of(cls, memory: TrainedMemory, stored: Sequence[int], more: Mapping[str, Tensor] | None = None) -> Album:
        """What a memory keeps of some objects, ``stored ID``, and raw inputs of others, by what they are called."""
        raw = {f"stored {identity}": each for identity, each in memory.pictures(stored).items()} | dict(more or {})
        kind = memory.kind
        if (columns := kind.columns) is not None:
            return cls(
                lambda _: None,
                columns=columns.names,
                cells=lambda name: columns.cells(raw[name]) if name in raw else None,
            )
        return cls(lambda name: kind.shown(raw[name]) if kind.is_picture and name in raw else None)

    def image(self, name: str, words: str) -> str:
        """The element that shows a picture; empty if there is none.

        Args:
            name: of the picture.
            words: what it shows, for those who do not see it.
        """
        alt = f'alt="{escape(words)}"'
        if name in self._shown:
            return f'<img {alt} data-of="{self._shown[name]}">'
        if (image := self._picture(name)) is None:
            return ""
        self._shown[name] = number = f"p{len(self._shown)}"
        return f'<img {alt} id="{number}" src="{_in_place(image)}">'


def png(image: Tensor) -> bytes:
    """A (channels, height, width) uint8 image as a PNG file."""
    return _file(_pillow(image), "PNG")


def _in_place(image: Tensor) -> str:
    """A picture as an address that holds it."""
    if max(image.shape[1:]) <= EXACT:
        return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
    made = _pillow(image)
    made.thumbnail((LARGEST, LARGEST))
    return f"data:image/jpeg;base64,{base64.b64encode(_file(made, 'JPEG', quality=85)).decode()}"


def _pillow(image: Tensor) -> Image.Image:
    pixels = image.cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def _file(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
