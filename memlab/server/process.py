"""The server as a process: its socket, its token, its start and its end."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from pathlib import Path

import uvicorn

from memlab.files import in_utf8
from memlab.server.application import application
from memlab.server.guard import Access, is_loopback
from memlab.trained import load

TOKEN = "MEMLAB_TOKEN"
GRACE = 10
"""Seconds for requests under way when the server is told to stop."""
KEEP_ALIVE = 75
"""Seconds that a connection is kept for another request: clients that send one just when it is closed lose it."""


def serve(memory: Path, *, host: str, port: int, token: str | None, access_log: bool) -> str:
    """Serve a memory until the process is told to stop, by SIGTERM or Ctrl-C; what was done, in a line.

    Args:
        memory: its folder.
        host: address to listen at.
        port: 0 for one that is free.
        token: for changes; None for that of the environment variable, or, on an address that others reach, a new one.
        access_log: whether to tell of each request on standard error.

    Raises:
        ValueError: if the address cannot be listened at, the token is none, or the memory cannot be loaded.
    """
    given = os.environ.get(TOKEN) if token is None else token
    if given is not None and not (given.isascii() and given.isprintable() and given.strip()):
        raise ValueError(f"the token must be one word of letters and digits; {TOKEN} or --token gives it")
    made = secrets.token_urlsafe(24) if given is None and not is_loopback(host) else None
    listening = _listen(host, port)
    with listening:
        opened = load(memory)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"

        def started() -> None:
            print(
                f"{in_utf8(memory)}: {len(opened):,} objects, {len(opened.classes):,} classes, at {address}", flush=True
            )
            if made is not None:
                print(f"token for changes: {made}", flush=True)

        app = application(opened, Access(given or made), started=started)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has stopped
            signal.signal(number, lambda *_: None)
        config = uvicorn.Config(
            app,
            log_level="info" if access_log else "warning",
            access_log=access_log,
            timeout_graceful_shutdown=GRACE,
            timeout_keep_alive=KEEP_ALIVE,
            server_header=False,
            ws="none",
        )
        uvicorn.Server(config).run(sockets=[listening])
    return "stopped"


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:  # getaddrinfo would take it for another one
        raise ValueError(f"--port={port}: must be a whole number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Without its protocol asyncio would not have it send at once, and each answer would take 40 ms longer.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"--host={host} --port={port}: cannot be listened at ({why})") from error
    return listening
