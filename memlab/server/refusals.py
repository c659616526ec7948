"""Requests that are refused: one clear line with a status, whatever the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from memlab.trained import RefusedMemoryError
from memlab.trained.refusal import UnchangeableMemoryError

LONGEST = 300
"""Characters of a line, as what is told back may be long."""


def line(text: object) -> str:
    r"""A text in one line that can be printed, cut where it is too long.

    >>> line("no\n such\x00 object")
    'no such object'
    """
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."


def refusal(status: int, text: object, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse({"error": line(text)}, status, headers)


@contextmanager
def told_as_refusals(mistake: int = 422) -> Iterator[None]:
    """Within this context what a memory raises becomes a refusal.

    Args:
        mistake: status of what is wrong with the request; that of the memory's own troubles is 503.
    """
    try:
        yield
    except (RefusedMemoryError, UnchangeableMemoryError) as error:
        raise HTTPException(503, str(error)) from error
    except ValueError as error:
        raise HTTPException(mistake, str(error)) from error
    except OSError as error:
        raise HTTPException(503, f"the memory cannot be read or written ({error.strerror or error})") from error


async def tell_http(_: Request, error: Exception) -> JSONResponse:
    """The answer where a route, or the routing, has refused a request."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return refusal(error.status_code, error.detail, headers)


async def tell_invalid(_: Request, error: Exception) -> JSONResponse:
    """The answer where a parameter of the address is not what is described."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return refusal(422, f"{first['loc'][-1]}={first.get('input')}: {first['msg']}")


async def tell_broken(_: Request, error: Exception) -> JSONResponse:
    """The answer where the server itself is wrong; the traceback goes to standard error."""
    return refusal(500, f"the server has failed ({type(error).__name__}); its standard error tells where")
