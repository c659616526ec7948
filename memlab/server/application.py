"""The routes: what can be asked of a memory over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from memlab import __version__
from memlab.server import contract
from memlab.server.guard import Access, Guard
from memlab.server.metrics import Metrics
from memlab.server.refusals import tell_broken, tell_http, tell_invalid
from memlab.server.served import ServedMemory
from memlab.server.stored import example, examples
from memlab.server.uploads import MAX_BYTES, MAX_LABEL, MAX_OBJECTS, Uploads, read_label
from memlab.trained import TrainedMemory
from memlab.trained.album import png

MAX_K, MAX_LISTED, MAX_MAPPED = 100, 1000, 50_000
Identity = Annotated[int, Path(ge=0, lt=2**63, description="which object")]
Limit = Annotated[int, Query(ge=1, le=MAX_LISTED)]
K = Annotated[int | None, Query(ge=1, le=MAX_K, description="objects of the evidence; 5 if not given")]
REFUSALS: dict[int | str, dict[str, Any]] = {"4XX": {"model": contract.Refusal}, "5XX": {"model": contract.Refusal}}


def application(memory: TrainedMemory, access: Access, *, started: Callable[[], object] = lambda: None) -> ASGIApp:
    """The server of a memory.

    Args:
        memory: nobody else changes it in this process.
        access: who may ask.
        started: called when requests are answered from now on.
    """
    metrics = Metrics()
    served, uploads = ServedMemory(memory, metrics), Uploads(memory.kind)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        served.measure_soon()
        started()
        yield
        served.close()
        uploads.close()

    app = FastAPI(
        title="memlab",
        summary="A trained memory: answers with their evidence, taught and corrected without training.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        dependencies=[Depends(_known_parameters)],
        responses=REFUSALS,
        exception_handlers={
            HTTPException: tell_http,
            RequestValidationError: tell_invalid,
            Exception: tell_broken,
        },
    )
    _serve_page(app)
    _serve_facts(app, served, metrics, needs_token=access.token is not None)
    _serve_answers(app, served, uploads)
    _serve_examples(app, served, uploads)
    _serve_corrections(app, served)
    _serve_overviews(app, served)
    return Guard(app, access=access, metrics=metrics)


def _serve_page(app: FastAPI) -> None:
    """The files that are there at the start, and no others."""
    folder = File(__file__).parent
    for file in sorted([*folder.glob("page.*"), *folder.glob("page/*.*")]):
        address = "/" if file.suffix == ".html" else f"/{file.relative_to(folder).as_posix()}"
        app.get(address, include_in_schema=False)(_giving(file))


def _serve_facts(app: FastAPI, served: ServedMemory, metrics: Metrics, *, needs_token: bool) -> None:
    @app.get("/health", response_model=contract.Health)
    async def health() -> Response:
        """Whether the server answers."""
        view = await served.view()
        return JSONResponse({"status": "ok", "objects": len(view.content), "digest": view.digest})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def count() -> Response:
        """What was counted, for Prometheus."""
        content = (await served.view()).content
        text = metrics.text({"objects": len(content), "classes": len(content.classes)})
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @app.get("/info", response_model=dict[str, Any])
    async def info() -> Response:
        """What the memory is, and what may be asked of it."""
        memory = served.memory
        about, usual = await served.look(lambda: (memory.info, memory.view.usual_novelty))
        view = memory.view
        return JSONResponse(
            {
                **about,
                "picture": memory.kind.is_picture,
                "input_shape": list(memory.kind.shape),
                "columns": memory.kind.columns and memory.kind.columns.names,
                "texts": memory.kind.texts and list(memory.kind.texts.columns),
                "writable": view.reads_objects,
                "needs_token": needs_token,
                "calibrated": view.calibration is not None,
                "usual_novelty": usual,
                "max_bytes": MAX_BYTES,
                "max_objects": MAX_OBJECTS,
                "max_label": MAX_LABEL,
                "version": __version__,
            }
        )


def _serve_answers(app: FastAPI, served: ServedMemory, uploads: Uploads) -> None:
    @app.post("/predict", response_model=contract.Answers, openapi_extra=_body(contract.Inputs))
    async def predict(
        request: Request,
        k: K = None,
        coverage: Annotated[float | None, Query(gt=0, lt=1, description="of sets of classes")] = None,
    ) -> Response:
        """Classify objects, with the evidence: pictures in ``files`` of a form, or arrays in JSON."""
        given = await uploads.objects(request, contract.Inputs)
        reply = await served.predict(given.raw, k=k, coverage=coverage)
        rows = [{"name": name, **row} for name, row in zip(given.names, reply.rows, strict=True)]
        return JSONResponse({"answers": rows, "digest": reply.digest})


def _serve_examples(app: FastAPI, served: ServedMemory, uploads: Uploads) -> None:
    memory = served.memory

    @app.post("/examples", status_code=201, response_model=contract.Added, openapi_extra=_body(contract.Examples))
    async def add(request: Request) -> Response:
        """Take objects in, of new classes too, without training: pictures and a ``label`` in a form, or JSON."""
        given = await uploads.objects(request, contract.Examples)
        labels, sources = given.labels, [f"upload: {name}" for name in given.names]
        assert labels is not None

        def make() -> dict[str, Any]:
            return {"ids": memory.add(given.raw, labels, sources=sources), "digest": memory.digest}

        return JSONResponse(await served.change(make), 201)

    @app.get("/examples", response_model=contract.Page)
    async def listed(
        label: Annotated[str | None, Query(description="only those of this class")] = None,
        source: Annotated[str | None, Query(description="only those whose source has this text in it")] = None,
        after: Annotated[int, Query(ge=-1, lt=2**63, description="only those with a larger id")] = -1,
        limit: Limit = 50,
    ) -> Response:
        """Stored objects, by id."""
        return JSONResponse(await served.look(lambda: examples(memory.view, label, source, after, limit)))

    @app.get("/examples/{identity}", response_model=contract.ExampleWithPicture)
    async def one(identity: Identity) -> Response:
        """A stored object."""
        found = example(await served.view(), identity)
        return JSONResponse({**found, "picture": memory.kind.is_picture and memory.keeps_inputs})

    @app.get("/examples/{identity}/picture", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    async def picture(identity: Identity) -> Response:
        """What is kept of its picture."""
        example(await served.view(), identity)
        kept = (await served.look(lambda: memory.pictures([identity]))).get(identity)
        if kept is None or not memory.kind.is_picture:
            raise HTTPException(404, f"id={identity}: no picture of it is kept")
        return Response(png(memory.kind.shown(kept)), media_type="image/png")

    @app.get("/examples/{identity}/neighbours", response_model=contract.Read)
    async def neighbours(identity: Identity, k: K = None) -> Response:
        """What all others say of a stored object."""

        def read() -> dict[str, Any]:
            example(memory.view, identity)
            return next(memory.neighbours(identity, k=k).rows(wait=False))

        return JSONResponse(await served.look(read))


def _serve_corrections(app: FastAPI, served: ServedMemory) -> None:
    memory = served.memory

    @app.patch("/examples/{identity}", response_model=contract.Relabelled, openapi_extra=_json(contract.Label))
    async def relabel(identity: Identity, request: Request) -> Response:
        """Give a stored object another class, a new one too."""
        label = await read_label(request)

        def make() -> dict[str, Any]:
            memory.refresh()
            example(memory.view, identity)
            before = memory.relabel(identity, label)[identity]
            return {"id": identity, "before": before, "label": label, "digest": memory.digest}

        return JSONResponse(await served.change(make))

    @app.delete("/examples/{identity}", response_model=contract.Receipt)
    async def forget(identity: Identity) -> Response:
        """Take a stored object out for good."""

        def make() -> dict[str, Any]:
            memory.refresh()
            example(memory.view, identity)
            return asdict(memory.forget(identity))

        return JSONResponse(await served.change(make))

    @app.delete("/examples", response_model=contract.Receipt)
    async def forget_class(label: Annotated[str, Query(description="the class")]) -> Response:
        """Take all objects of a class out for good."""

        def make() -> dict[str, Any]:
            memory.refresh()
            if label not in memory.classes:
                raise HTTPException(404, f"label={label}: there is no such class in the memory")
            return asdict(memory.forget(class_=label))

        return JSONResponse(await served.change(make))

    @app.post("/undo", response_model=dict[str, Any])
    async def undo() -> Response:
        """Take back the last addition or relabelling that is not taken back yet."""
        return JSONResponse(await served.change(memory.undo, mistake=409))


def _serve_overviews(app: FastAPI, served: ServedMemory) -> None:
    memory = served.memory

    @app.get("/journal", response_model=contract.Journal)
    async def journal(limit: Limit = 50) -> Response:
        """Who changed what, and when."""
        return JSONResponse({"changes": (await served.look(memory.journal))[::-1][:limit]})

    @app.get("/audit", response_model=contract.Audit)
    async def audit(limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Response:
        """Labels that look wrong, objects stored twice, and how classes hold together; takes a while once."""
        found = await served.audit()
        return JSONResponse({**found.values(limit), "digest": found.evidence.view.digest})

    @app.get("/audit/progress", response_model=contract.Progress)
    async def progress() -> Response:
        """How far the audit under way is."""
        total = len((await served.view()).content)
        return JSONResponse({"running": served.is_auditing, "done": served.audited, "total": total})

    @app.get("/map", response_model=contract.Map)
    async def plane(limit: Annotated[int, Query(ge=1, le=MAX_MAPPED)] = 5000) -> Response:
        """Stored objects in the plane of two leading principal components."""
        return JSONResponse(await served.map(limit))


def _giving(file: File) -> Callable[[], FileResponse]:
    return lambda: FileResponse(file, headers={"Cache-Control": "no-cache"})


async def _known_parameters(request: Request) -> None:
    """Refuse a parameter that a route does not have, or that is given twice, in place of ignoring it."""
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    given = request.query_params.multi_items()
    for name, _ in given:
        if name not in known:
            allowed = f"must be one of {', '.join(sorted(known))}" if known else "this address has none"
            raise HTTPException(422, f"{name}: is no parameter; {allowed}")
    if len(given) > len(dict(given)):
        raise HTTPException(422, "a parameter is given twice")


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """The description of a body that is a form of pictures, or JSON of arrays."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_OBJECTS}
    form: dict[str, Any] = {"type": "object", "properties": {"files": files}, "required": ["files"]}
    if "labels" in model.model_fields:
        form["properties"]["label"] = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL}
        form["required"].append("label")
    described = _json(model)
    described["requestBody"]["content"]["multipart/form-data"] = {"schema": form}
    return described


def _json(model: type[BaseModel]) -> dict[str, Any]:
    """The description of a body of JSON."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}
