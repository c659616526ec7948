"""What the objects of a memory are, and how what is given becomes raw inputs as they were trained on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from memlab.checks import check_choice
from memlab.data.columns import Columns, listed
from memlab.data.datasets.image_cache import decoded, fitted
from memlab.data.frames import frame_of, read_frame
from memlab.data.sequences import Sequences, padded
from memlab.data.texts import Text, Texts, quoted
from memlab.files import in_utf8

log = logging.getLogger(__name__)

KEPT = ("thumbnails", "raw", "none")
THUMBNAIL = 32
"""Largest side of a thumbnail, in pixels."""


class Batch(NamedTuple):
    """Some objects, as a data set would hold them."""

    raw: Tensor
    """(n, ...) raw inputs; sequences (n, T, m) as long as the longest, NaN behind the end of each."""
    sources: list[str]
    """(n,) where each is from: a file, or the place among what was given; a text, as it begins."""


@dataclass(frozen=True)
class ObjectKind:
    """What one object is.

    Args:
        shape: of one object; (channels, height, width) of an image, (None, m) of a sequence of any number of steps.
        dtype: of raw inputs.
        levels: lightest grey of uint8 images, 255 in picture files.
        columns: of rows of a table; None for other objects.
        texts: of texts; None for other objects.
    """

    shape: tuple[int | None, ...]
    dtype: torch.dtype
    levels: int = 255
    columns: Columns | None = None
    texts: Texts | None = None

    @property
    def is_picture(self) -> bool:
        """Whether objects are images that picture files can be made into."""
        return self.dtype is torch.uint8 and len(self.shape) == 3 and self.shape[0] in (1, 3)

    @property
    def is_sequence(self) -> bool:
        """Whether objects have any number of steps."""
        return self.shape[:1] == (None,)

    def has_shape(self, shape: Sequence[int]) -> bool:
        """Whether an object may have a shape."""
        if self.is_sequence:
            return len(shape) == 2 and shape[0] > 0 and shape[1] == self.shape[1]
        return tuple(shape) == self.shape

    def batches(self, inputs: Any, size: int) -> Iterator[Batch]:
        """Read what is given, ``size`` objects at a time; the next are decoded while the last are in use.

        Files are decoded by one thread for each core, and no more than two batches are held.

        Args:
            inputs: one object or many: paths of picture files, PIL images, arrays or tensors of raw inputs, rows of
                numbers; many in an array (n, ...), a sequence or an iterator. Of a table its file, a frame, or rows,
                by name or in order; arrays have the codes of words in them, and NaN where a value is missing. Of
                sequences an array (n, T, m) has NaN behind the end of each. Of texts one, or many; of pairs
                two texts, or many pairs of these.
            size: objects of a batch; the last one may be smaller.

        Raises:
            ValueError: for what cannot be read, or is of another kind.
        """
        if self.columns is not None and not isinstance(inputs, np.ndarray | Tensor):
            inputs = self._rows(inputs, self.columns)
        if self.texts is not None and not isinstance(inputs, Sequences | np.ndarray | Tensor):
            given = self._given_texts(inputs, self.texts)
            encoded = self.texts.encoded(given)
            for rows in torch.arange(len(given)).split(size):
                yield Batch(encoded.taken(rows), [quoted(given[row]) for row in rows.tolist()])
            return
        if isinstance(inputs, Sequences):
            for rows in torch.arange(len(inputs)).split(size):
                start = int(rows[0])
                yield Batch(self._array(inputs.taken(rows), f"inputs[{start}]"), _places(start, len(rows)))
            return
        if isinstance(inputs, np.ndarray | Tensor) and inputs.ndim > 0 and self.has_shape(inputs.shape[1:]):
            for start in range(0, len(inputs), size):
                part = inputs[start : start + size]
                yield Batch(self._array(part, f"inputs[{start}]"), _places(start, len(part)))
            return
        items = enumerate(self._many(inputs))
        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:

            def ask() -> list[Future[tuple[Tensor, str]]]:
                return [pool.submit(self._one, item, place) for place, item in islice(items, size)]

            waiting = ask()
            while waiting:
                coming = ask()
                try:
                    found = [each.result() for each in waiting]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                waiting = coming
                raw, sources = zip(*found, strict=True)
                lengths = torch.tensor([len(each) for each in raw]) if self.is_sequence else None
                yield Batch(torch.stack(raw) if lengths is None else padded(torch.cat(raw), lengths), list(sources))

    def picture(self, data: bytes, name: str, *, formats: tuple[str, ...] | None = None) -> Tensor:
        """A picture file's bytes as a raw input.

        Args:
            data: the whole file.
            name: what it is called in a message.
            formats: names that Pillow has for the formats it may be of; None for all that Pillow reads.

        Raises:
            ValueError: if it cannot be read, or objects are no pictures.
        """
        if not self.is_picture:
            raise ValueError(f"{name}: a file is no object of this memory; must be {self.wanted}")
        try:
            return self._levelled(decoded(data, self._picture_shape, formats=formats))
        except OSError as error:
            why = error.strerror or "it is no picture, or damaged"
            raise ValueError(f"{name}: cannot be read as a picture ({why})") from error
        except Exception as error:  # Pillow's readers raise almost anything on a damaged file
            why = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{name}: cannot be read as a picture ({why})") from error

    def shown(self, raw: Tensor) -> Tensor:
        """(n, channels, height, width) images with 255 as the lightest grey, as a picture file has them."""
        return raw if self.levels == 255 else ((raw.int() * 255 + self.levels // 2) // self.levels).to(torch.uint8)

    def kept(self, raw: Tensor, keep: str) -> Tensor | None:
        """What a memory keeps of raw inputs: all, thumbnails of pictures, or nothing.

        Args:
            raw: (n, ...) raw inputs.
            keep: ``raw``; ``thumbnails``, images of at most 32 pixels a side, rows of a table, texts, nothing of other
                objects; ``none``.
        """
        check_choice("keep", keep, KEPT)
        if keep == "none" or (keep == "thumbnails" and not (self.is_picture or self.columns or self.texts)):
            return None
        if self.is_sequence:
            return raw.to(torch.promote_types(raw.dtype, torch.float32))  # which may have NaN, whatever comes to it
        longest = max(raw.shape[2:], default=0)
        if keep == "raw" or longest <= THUMBNAIL:
            return raw
        size = [max(side * THUMBNAIL // longest, 1) for side in raw.shape[2:]]
        return F.interpolate(raw, size=size, mode="bilinear", antialias=True)

    def _rows(self, inputs: Any, columns: Columns) -> Tensor:
        """(n, F) values of a table, in the order of training."""
        if isinstance(inputs, str | os.PathLike):
            frame, name = read_frame(Path(inputs)), in_utf8(Path(inputs))
        else:
            frame, name = frame_of(inputs, names=columns.names), "inputs"
        rows, notes = columns.rows(frame, name=name)
        for note in notes:
            log.warning(note)
        return rows

    def _given_texts(self, inputs: Any, texts: Texts) -> list[Text]:
        """The texts, or pairs of them, among what is given.

        Raises:
            ValueError: for one of another kind.
        """
        if not isinstance(inputs, Iterable):
            raise ValueError(f"inputs: of type {type(inputs).__name__}; must be {self.wanted}")
        given = [inputs] if isinstance(inputs, str) else list(inputs)
        if texts.separator is not None and given and all(isinstance(each, str) for each in given):
            given = [given]
        for place, each in enumerate(given):
            parts = list(each) if isinstance(each, list | tuple) else [each]
            if wrong := [part for part in parts if not isinstance(part, str)]:
                raise ValueError(f"inputs[{place}]: is of type {type(wrong[0]).__name__}; must be {self.wanted}")
        return given

    def _many(self, inputs: Any) -> Iterable[Any]:
        """The objects among what is given one by one."""
        if isinstance(inputs, str | os.PathLike | Image.Image):
            return [inputs]
        if isinstance(inputs, np.ndarray | Tensor):
            return [inputs]  # one object, or of a wrong shape, which is told
        if isinstance(inputs, Sequence) and inputs and isinstance(inputs[0], Real):
            return [inputs]
        if not isinstance(inputs, Iterable):
            raise ValueError(f"inputs: of type {type(inputs).__name__}; must be {self.wanted}")
        return inputs

    def _one(self, item: Any, place: int) -> tuple[Tensor, str]:
        if isinstance(item, str | os.PathLike):
            return self._file(Path(item)), in_utf8(Path(item).absolute())
        if isinstance(item, Image.Image):
            return self._picture(item, place), f"inputs[{place}]"
        return self._array([item] if not isinstance(item, np.ndarray | Tensor) else item[None], f"inputs[{place}]")[
            0
        ], f"inputs[{place}]"

    def _file(self, path: Path) -> Tensor:
        name = in_utf8(path)
        try:
            data = path.read_bytes() if self.is_picture else b""
        except OSError as error:
            raise ValueError(f"{name}: cannot be read as a picture ({error.strerror})") from error
        return self.picture(data, name)

    def _picture(self, image: Image.Image, place: int) -> Tensor:
        if not self.is_picture:
            raise ValueError(f"inputs[{place}]: a picture is no object of this memory; must be {self.wanted}")
        try:
            return self._levelled(fitted(image, self._picture_shape))
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"inputs[{place}]: cannot be read as a picture ({why})") from error

    def _levelled(self, pixels: np.ndarray[Any, Any]) -> Tensor:
        if self.levels != 255:
            pixels = ((pixels.astype(np.int32) * self.levels + 127) // 255).astype(np.uint8)
        return torch.from_numpy(pixels.copy())

    def _array(self, given: Any, name: str) -> Tensor:
        """(n, ...) raw inputs of an array of numbers."""
        try:
            array = given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{name}: is not an array of numbers; must be {self.wanted}") from error
        if not self.has_shape(array.shape[1:]) or array.is_complex():
            raise ValueError(f"{name}: is of shape {tuple(array.shape[1:])}; must be {self.wanted}")
        array = array.detach().cpu()
        if self.dtype.is_floating_point:
            return array.to(self.dtype)
        kept = array.to(self.dtype)
        if not torch.equal(kept.double(), array.double()):
            raise ValueError(f"{name}: holds values that an object does not have; must be {self.wanted}")
        return kept

    @property
    def _picture_shape(self) -> tuple[int, int, int]:
        channels, height, width = (side or 0 for side in self.shape)  # of a picture all are known
        return channels, height, width

    @property
    def wanted(self) -> str:
        """What an object may be given as, in words."""
        if self.columns is not None:
            return f"a row with the columns {listed(self.columns.names)}"
        if self.texts is not None:
            return self.texts.wanted
        dtype = str(self.dtype).removeprefix("torch.")
        if self.is_sequence:
            return f"a sequence, an array (steps, {self.shape[1]}) of {dtype}"
        array = f"an array {self.shape} of {dtype}"
        return f"a picture file, a PIL image or {array}" if self.is_picture else array


def _places(start: int, count: int) -> list[str]:
    return [f"inputs[{place}]" for place in range(start, start + count)]
