"""What comes with a request, read within limits and decoded from memory: pictures, arrays, labels."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from fastapi import Request
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from torch import Tensor

from memlab.server.contract import Examples, Inputs, Label, Strict
from memlab.server.refusals import told_as_refusals
from memlab.trained.objects import ObjectKind

MAX_BYTES, MAX_JSON_BYTES, MAX_LABEL_BYTES = 2**25, 2**23, 2**14
"""Bytes of a body: of pictures, of arrays as JSON, of a label. JSON takes twenty times as much once it is read."""
MAX_HELD = 2**28
"""Bytes of all bodies that are read at a time."""
MAX_OBJECTS = 256
"""Objects of a request."""
MAX_PIXELS = 50_000_000
"""Pixels of a picture, whatever its bytes."""
MAX_LABEL = 200
PATIENCE = 60.0
"""Seconds for a body to come."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of pictures, by Pillow's names: none that starts another program, as EPS does."""
Model = TypeVar("Model", bound=Strict)
T = TypeVar("T")


class Objects(NamedTuple):
    """Objects as they came."""

    raw: Tensor
    """(n, ...) raw inputs."""
    names: list[str]
    """(n,) of the uploads, or the places among the inputs."""
    labels: str | list[str] | None
    """Class of all, or of each, where it is told."""


class _Parser(MultiPartParser):
    """Keeps files in memory, as no upload is to be on a disk."""

    spool_max_size = MAX_BYTES


class Uploads:
    """Reads the bodies of requests, decodes them in threads of its own, and bounds what all of them hold.

    Args:
        kind: what an object is.
    """

    def __init__(self, kind: ObjectKind) -> None:
        self._kind = kind
        self._held = 0
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")

    async def objects(self, request: Request, model: type[Inputs] | type[Examples]) -> Objects:
        """The objects of a request, from a form of files or from JSON.

        Args:
            request: of type multipart/form-data with ``files``, or application/json.
            model: of the JSON; if it has labels, a form must have a field ``label``.

        Raises:
            HTTPException: for what is too large, of another type or cannot be read.
        """
        media = _media(request)
        if media == "multipart/form-data":
            with self._room(request, MAX_BYTES):
                return await self._from_form(request, labelled=model is Examples)
        if media == "application/json":
            with self._room(request, MAX_JSON_BYTES):
                data = b"".join([chunk async for chunk in _limited(request, MAX_JSON_BYTES)])
                return await self._run(lambda: _from_arrays(_parsed(data, model), self._kind))
        raise HTTPException(415, f"content-type={media}: must be multipart/form-data or application/json")

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(cancel_futures=True)

    @contextmanager
    def _room(self, request: Request, most: int) -> Iterator[None]:
        """Bytes for a body, as long as it is read."""
        told = _told_length(request, most)
        wanted = most if told is None else told
        if self._held + wanted > MAX_HELD:
            raise HTTPException(503, "too many uploads at a time; try again later", {"Retry-After": "1"})
        self._held += wanted
        try:
            yield
        finally:
            self._held -= wanted

    async def _run(self, decode: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, decode)

    async def _from_form(self, request: Request, *, labelled: bool) -> Objects:
        stream: Any = _limited(request, MAX_BYTES)
        try:
            form = await _Parser(request.headers, stream, max_files=MAX_OBJECTS, max_fields=1).parse()
        except MultiPartException as error:
            raise HTTPException(400, error.message) from error
        try:
            files, label = _fields(form.multi_items(), labelled=labelled)
            names = [base_name(file.filename or "") for file in files]
            pairs = zip([await file.read() for file in files], names, strict=True)
        finally:
            await form.close()
        decoding = [self._run(partial(_picture, data, name, self._kind)) for data, name in pairs]
        return Objects(torch.stack(await asyncio.gather(*decoding)), names, label)


async def read_label(request: Request) -> str:
    """The class that a request names in JSON.

    Raises:
        HTTPException: if it is something else.
    """
    if (media := _media(request)) != "application/json":
        raise HTTPException(415, f"content-type={media}: must be application/json")
    data = b"".join([chunk async for chunk in _limited(request, MAX_LABEL_BYTES)])
    return label_of(_parsed(data, Label).label)


def label_of(text: str, name: str = "label") -> str:
    """A class name, if it is one that can be read and told.

    Raises:
        HTTPException: if it is empty, too long or holds letters that cannot be printed.
    """
    if not text.strip() or len(text) > MAX_LABEL or not text.isprintable():
        raise HTTPException(422, f"{name}={text}: must have 1 to {MAX_LABEL} letters that can be printed")
    return text.strip()


def base_name(name: str) -> str:
    r"""The last part of an upload's name, cleaned: told back, and in a source; nothing is opened by it.

    >>> base_name("..\\../etc/cat\n.jpg")
    'cat .jpg'
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    clean = " ".join("".join(letter if letter.isprintable() else " " for letter in last).split())
    return clean[-100:] or "unnamed"


def _media(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _told_length(request: Request, most: int) -> int | None:
    """Bytes that the body is to have; None if that is not told.

    Raises:
        HTTPException: if they are too many.
    """
    told = request.headers.get("content-length")
    if told is not None and (not told.isdecimal() or len(told) > 18 or int(told) > most):
        raise HTTPException(413, f"the body is too large; must be at most {most:,} bytes")
    return None if told is None else int(told)


async def _limited(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body, piece by piece; refused as soon as it is known to be too large or takes too long."""
    _told_length(request, most)
    came = 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.stream():
                came += len(chunk)
                if came > most:
                    raise HTTPException(413, f"the body is too large; must be at most {most:,} bytes")
                yield chunk
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not come within {PATIENCE:.0f} seconds") from error


def _fields(items: list[tuple[str, UploadFile | str]], *, labelled: bool) -> tuple[list[UploadFile], str | None]:
    """Files and label of a form."""
    files: list[UploadFile] = []
    label: str | None = None
    for name, value in items:
        if name == "files" and isinstance(value, UploadFile):
            files.append(value)
        elif name == "label" and labelled and isinstance(value, str):
            label = label_of(value)
        else:
            raise HTTPException(
                422, f"{name}: must be {'a file in files, or a label' if labelled else 'a file in files'}"
            )
    if not files:
        raise HTTPException(422, "files: there are none")
    if labelled and label is None:
        raise HTTPException(422, "label: must be given, the class of all files")
    return files, label


def _picture(data: bytes, name: str, kind: ObjectKind) -> Tensor:
    if kind.is_picture:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
        except Image.DecompressionBombError:
            width = height = MAX_PIXELS
        except Exception as error:  # Pillow's readers raise almost anything on a damaged file
            raise HTTPException(422, f"{name}: must be a picture, of {', '.join(FORMATS)}") from error
        if width * height > MAX_PIXELS:
            raise HTTPException(413, f"{name}: has too many pixels; must be at most {MAX_PIXELS:,}")
    with told_as_refusals():
        return kind.picture(data, name, formats=FORMATS)


def _parsed(data: bytes, model: type[Model]) -> Model:
    try:
        values = json.loads(data, parse_constant=_no_number)
    except RecursionError as error:
        raise HTTPException(400, "the JSON is nested too deeply") from error
    except ValueError as error:
        raise HTTPException(400, f"the JSON cannot be read ({error})") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        known = [str(part) for part in first["loc"] if isinstance(part, int) or part in model.model_fields]
        if first["type"] == "extra_forbidden":
            told = f"{first['loc'][-1]}: is no field; must be one of {', '.join(model.model_fields)}"
        else:
            told = f"{'.'.join(known) or 'the JSON'}: {first['msg']}"
        raise HTTPException(422, told) from error


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _from_arrays(given: Inputs | Examples, kind: ObjectKind) -> Objects:
    count = len(given.inputs)
    if count > MAX_OBJECTS:
        raise HTTPException(413, f"inputs: {count:,} of them; must be at most {MAX_OBJECTS}")
    labels = _labels(given.labels, count) if isinstance(given, Examples) else None
    with told_as_refusals():
        in_words = kind.columns is not None or kind.texts is not None
        inputs: Any = given.inputs if in_words else _arrays(given.inputs, kind)
        (batch,) = kind.batches(inputs, count)
        may_be_nan = kind.columns is not None or kind.is_sequence  # missing, or behind the end
        good = ~batch.raw.isinf() if may_be_nan else batch.raw.isfinite()
        if not (finite := good.flatten(1).all(dim=1)).all():
            raise ValueError(f"inputs[{int(finite.byte().argmin())}]: holds a value that is not finite, or too large")
    return Objects(batch.raw, batch.sources, labels)


def _labels(given: str | list[str], count: int) -> str | list[str]:
    if isinstance(given, str):
        return label_of(given, "labels")
    if len(given) != count:
        raise HTTPException(422, f"labels: {len(given)} of them for {count} inputs; must be one for each")
    return [label_of(each, "labels") for each in given]


def _arrays(inputs: list[Any], kind: ObjectKind) -> NDArray[Any] | list[NDArray[Any]]:
    """(n, ...) numbers, or those of each sequence; words and truths are none."""
    try:
        array = np.asarray(inputs)
    except (ValueError, OverflowError):  # rows of several sizes
        array = np.empty(0, dtype=object)
    if array.dtype.kind in "iuf" and kind.has_shape(array.shape[1:]):
        return array
    each = []
    for place, row in enumerate(inputs):
        try:
            one = np.asarray(row)
        except (ValueError, OverflowError):
            one = np.empty(0, dtype=object)
        if one.dtype.kind not in "iuf" or not kind.has_shape(one.shape):
            told = f"of shape {one.shape}" if one.dtype.kind in "iuf" else "not an array of numbers"
            raise ValueError(f"inputs[{place}]: is {told}; must be {kind.wanted}")
        each.append(one)
    if kind.is_sequence and each:
        return each
    raise ValueError(f"inputs: are not numbers that go together; must be {kind.wanted}")
