"""``memlab serve``: a trained memory over HTTP, with a page."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Serve a trained memory over HTTP: a page to ask and teach it by drag and drop, and JSON for programs, described at
/openapi.json.

  POST /predict                   classify pictures (files of a form) or arrays (JSON {"inputs": [...]}), with evidence
  POST /examples                  take objects in, of new classes too, without training
  GET /examples                   list what is stored; /examples/ID, /examples/ID/picture, /examples/ID/neighbours
  PATCH /examples/ID              give an object another class: {"label": "lynx"}
  DELETE /examples/ID             take an object out for good; DELETE /examples?label=lynx a whole class
  POST /undo                      take the last change back; GET /journal lists them
  GET /audit, /map                labels that look wrong; all objects in the plane
  GET /health, /info, /metrics    that it is there; what it is; counts for Prometheus

Queries that come while others are read are read together. What a request has changed is on the disk when it is
answered, whatever happens then, and what another process changes, as memlab add, is seen by the next request.

It listens at 127.0.0.1, where no token is needed and requests that come by a web site of others are refused. Elsewhere
all may read, and changes need the header Authorization: Bearer TOKEN: the token is that of the environment variable
MEMLAB_TOKEN, or of --token, which other users of the machine can see, or a new one that is printed at the start. There
is no encryption: put a proxy that has it before a server that others reach.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab serve``."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("memory", type=Path, metavar="RUN", help="a run folder, or one that memory.save wrote")
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine alone)")
    add("--port", type=int, default=8000, help="0 for one that is free (default: %(default)s)")
    add("--token", default=None, help="that changes need (default: MEMLAB_TOKEN; a new one where it is needed)")
    add("--access-log", action="store_true", help="tell of each request on standard error")


def run(arguments: argparse.Namespace) -> str:
    """Serve until told to stop; that it has."""
    try:
        from memlab.server.process import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "memlab":
            raise
        raise ValueError(f"serve: needs {error.name}; pip install 'memlab[serve]'") from error
    return serve(
        arguments.memory,
        host=arguments.host,
        port=arguments.port,
        token=arguments.token,
        access_log=arguments.access_log,
    )
