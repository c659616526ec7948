"""A trained memory in use: predict, add, forget, relabel, undo, condense, calibrate, save, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memlab.checks import check_number, check_whole_number
from memlab.data.sequences import joined
from memlab.files import check_new_or_empty, in_utf8
from memlab.memory.reading import check_k
from memlab.trained.answer import Answer, View
from memlab.trained.audit import Audit, audit
from memlab.trained.calibration import (
    CalibrationObjects,
    fit_temperature,
    numbers_of,
    own_nonconformity,
    read_calibration,
)
from memlab.trained.changes import NOT_UNDONE, Receipt, chosen, last_not_undone, relabelled, without
from memlab.trained.condensation import SHARES, Condensed, Measured, kept_first, measured, objects_to_keep
from memlab.trained.content import Content
from memlab.trained.export import COMPARED, Comparison, export_onnx, export_parquet
from memlab.trained.folder import MANIFEST, Calibration, Manifest, MemoryFolder
from memlab.trained.model import read_model
from memlab.trained.objects import ObjectKind
from memlab.trained.refusal import RefusedMemoryError
from memlab.trained.segments import SIZE, Segment, split

FOLDER = "memory"
"""Where a run folder has its memory."""


class TrainedMemory:
    """A memory in a folder, opened by `load`.

    Every change is on the disk when the method that makes it returns, and is made by one process at a time. A process
    that has the same folder open sees it at its own next change, or when it calls `refresh`.

    Objects have ids: numbers that stay theirs for ever and are never given again.

    What is read is read of one moment, so that threads may read while one other changes the memory or refreshes it.
    """

    def __init__(self, folder: MemoryFolder, *, device: torch.device, encoder: nn.Module | None) -> None:
        self._folder = folder
        manifest = folder.manifest()
        self._model = read_model(manifest.model, folder.path / manifest.weights, device=device, encoder=encoder)
        if self._model.fingerprint() != manifest.fingerprint:
            raise RefusedMemoryError(
                f"{manifest.weights}: is not the encoder that made the keys; restore it, or train anew"
            )
        folder.sweep(manifest)

        def whole(latest: Manifest) -> tuple[Manifest, list[Segment], CalibrationObjects | None]:
            segments = [folder.segment(latest, number) for number in latest.segments]
            return latest, segments, self._read_calibration(latest)

        manifest, segments, self._calibration = folder.latest(whole)
        self._content = Content.of(segments, first=manifest.classes, device=device)
        if self._calibration is not None and self._calibration.queries.shape[1:] != self._content.keys.shape[1:]:
            raise RefusedMemoryError(f"{folder.path}: its calibration objects were made by another encoder")
        self._show(manifest)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return f"TrainedMemory({in_utf8(self.folder)}: {len(self):,} objects, {len(self.classes)} classes)"

    @property
    def view(self) -> View:
        """The memory as it is now; later changes make another view and leave this one as it is."""
        return self._view

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._folder.path

    @property
    def classes(self) -> tuple[str, ...]:
        """(C,) names of the classes that have objects, in the order of probabilities."""
        return self._content.classes

    @property
    def kind(self) -> ObjectKind:
        """What an object is."""
        return self._model.kind

    @property
    def keeps_inputs(self) -> bool:
        """Whether something of the raw inputs is kept, to be had from `pictures`."""
        return any(entry.raw for entry in self._manifest.segments.values())

    @property
    def digest(self) -> str:
        """SHA-256 of encoder and objects; equal whatever was added and forgotten before."""
        return self._manifest.digest

    @property
    def info(self) -> dict[str, Any]:
        """What it is, as plain values."""
        manifest, content = self._manifest, self._view.content
        calibration = manifest.calibration
        counts = content.labels.bincount(minlength=len(content.classes)).tolist()
        return {
            "folder": in_utf8(self.folder),
            **manifest.about,
            "objects": len(content) if manifest.reads_objects else 0,
            "classes": dict(zip(content.classes, counts, strict=True)),
            "inputs": self.kind.wanted,
            "encoder": self._model.recipes["encoder"]["class"],
            "embedding_size": content.keys.shape[1],
            "similarity": self._model.recipes["similarity"]["class"],
            "scale": float(torch.as_tensor(self._model.similarity.scale).detach()),
            "reading": self._model.recipes["reading"]["class"],
            **({} if self._model.hops is None else {"hops": self._model.hops.hops.number}),
            "keeps": manifest.keep,
            "calibration_objects": 0 if calibration is None else calibration.objects,
            "temperature": 1.0 if calibration is None else calibration.temperature,
            "changes": manifest.change,
            "fingerprint": manifest.fingerprint,
            "digest": manifest.digest,
            "bytes": self._folder.size(),
        }

    def predict(self, inputs: Any, *, k: int | None = None, coverage: float | None = None) -> Answer:
        """Classify objects, with evidence.

        Args:
            inputs: paths of picture files, PIL images, arrays or tensors of raw inputs, rows of numbers: one, or many
                in an array (n, ...), a sequence or an iterator. Files are decoded in parallel, a batch at a time.
            k: objects of the evidence; None for 5, or as many as there are.
            coverage: of sets of classes, above 0 and below 1, as 0.95; None for no sets.

        Returns:
            labels, probabilities, evidence, novelty, credibility; see `memlab.trained.Answer`.

        Raises:
            ValueError: for inputs of another kind or that cannot be read, or a value out of range.
        """
        view = self._view
        answers = list(self._stream(view, inputs, k, coverage))
        return Answer.join(answers) if answers else self._answer(view, view.content.keys[:0], k, coverage)

    def stream(self, inputs: Any, *, k: int | None = None, coverage: float | None = None) -> Iterator[Answer]:
        """Classify objects a batch at a time, so that no more than two batches are held; see `predict`."""
        return self._stream(self._view, inputs, k, coverage)

    def add(self, inputs: Any, labels: str | Sequence[object], *, sources: Sequence[str] | None = None) -> list[int]:
        """Take in new objects, of new classes too; nothing is trained.

        Args:
            inputs: as of `predict`.
            labels: name of the class of each, or one for all.
            sources: where each is from, to be told; None for the files, or the places among what is given.

        Returns:
            their ids.

        Raises:
            ValueError: for inputs that cannot be read, labels that do not fit them, or a memory that reads no objects.
        """
        self._check_reads_objects()
        encoded = [
            (batch, self._encoded(batch.raw).cpu()) for batch in self.kind.batches(inputs, self._model.batch_size)
        ]
        count = sum(len(keys) for _, keys in encoded)
        names = [labels] * count if isinstance(labels, str) else [str(label) for label in labels]
        if len(names) != count:
            raise ValueError(f"labels: {len(names)} of them for {count} objects; must be one for each")
        if any(not name for name in names):
            raise ValueError("labels: one is empty; must be the name of a class")
        if sources is not None and len(sources) != count:
            raise ValueError(f"sources: {len(sources)} of them for {count} objects; must be one for each")
        if not count:
            return []
        kept = [self.kind.kept(batch.raw, self._manifest.keep) for batch, _ in encoded]
        keys = torch.cat([keys for _, keys in encoded]).to(self._content.keys.dtype)
        where = tuple(sources or (source for batch, _ in encoded for source in batch.sources))
        if not (finite := keys.isfinite().all(dim=1)).all():
            name = where[int(finite.byte().argmin())]
            raise ValueError(f"{name}: has no finite embedding; must have values like those of the training data")
        raw = None if kept[0] is None else joined([each for each in kept if each is not None])

        def change(manifest: Manifest) -> tuple[Manifest, dict[int, Segment | None], dict[str, Any]]:
            ids = torch.arange(manifest.next_id, manifest.next_id + count)
            changed: dict[int, Segment | None] = {}
            for number, segment in split(Segment(ids, keys, tuple(names), where, raw)).items():
                there = self._folder.segment(manifest, number, raw=True) if number in manifest.segments else None
                changed[number] = segment if there is None else there.followed_by(segment)
            note = {"what": "add", "ids": ids.tolist(), "labels": names}
            return replace(manifest, next_id=manifest.next_id + count), changed, note

        return list(self._change(change)["ids"])

    def forget(
        self, ids: int | Sequence[int] | None = None, *, class_: str | None = None, source: str | None = None
    ) -> Receipt:
        """Take objects out for good: what is predicted then is what a memory predicts that never held them.

        No file of the memory holds a byte of them afterwards, so that this, and what was done before it, cannot be
        undone. The journal keeps their ids and class names.

        Args:
            ids: which objects.
            class_: or all of a class, by its name.
            source: or all that came from this file.

        Returns:
            a receipt, which names too what is not undone by it.

        Raises:
            ValueError: if not exactly one of these is given, for objects that there are not, or if nothing would be
                left.
        """
        if sum(given is not None for given in (ids, class_, source)) != 1:
            raise ValueError("forget: must be given one of ids, class_ and source")
        self._check_reads_objects()
        before = ""

        def change(manifest: Manifest) -> tuple[Manifest, dict[int, Segment | None], dict[str, Any]]:
            nonlocal before
            before = manifest.digest
            gone = chosen(self._content, ids, class_=class_, source=source)
            note = {"what": "forget", "ids": gone.tolist(), "labels": self._content.label_names(gone)}
            return manifest, without(self._folder, manifest, gone), note

        line = self._change(change)
        return Receipt(list(line["ids"]), before, line["digest"])

    def relabel(self, ids: int | Sequence[int], label: str) -> dict[int, str]:
        """Give objects another class, a new one too.

        Args:
            ids: which objects.
            label: name of the class.

        Returns:
            the class that each had before, by id.

        Raises:
            ValueError: for objects that there are not, or an empty name.
        """
        self._check_reads_objects()
        if not isinstance(label, str) or not label:
            raise ValueError(f"label={label}: must be the name of a class")

        def change(manifest: Manifest) -> tuple[Manifest, dict[int, Segment | None], dict[str, Any]]:
            found = chosen(self._content, ids)
            before = self._content.label_names(found)
            note = {"what": "relabel", "ids": found.tolist(), "label": label, "before": before}
            return manifest, relabelled(self._folder, manifest, dict.fromkeys(found.tolist(), label)), note

        line = self._change(change)
        return dict(zip(line["ids"], line["before"], strict=True))

    def undo(self) -> dict[str, Any]:
        """Take back the last change that is not taken back yet: what was added goes for good, old labels return.

        What was forgotten is nowhere to be had from: a `forget` or `condense`, and what was done before it, stays.

        Returns:
            the line of the journal of the change taken back.

        Raises:
            ValueError: if there is nothing to take back, or the last change is a `forget` or `condense`.
        """
        undone: dict[str, Any] = {}

        def change(manifest: Manifest) -> tuple[Manifest, dict[int, Segment | None], dict[str, Any]]:
            last = last_not_undone(self._folder.journal(manifest))
            if last is None:
                raise ValueError("undo: no change is left to take back")
            if last["what"] in ("forget", "condense"):
                raise ValueError(
                    f"undo: the last change, {last['change']}, has forgotten {len(last['ids'])} objects, of which"
                    " nothing is left; add them again from where they came from"
                )
            undone.update(last)
            if last["what"] == "add":
                changed = without(self._folder, manifest, torch.tensor(last["ids"]))
            else:
                changed = relabelled(self._folder, manifest, dict(zip(last["ids"], last["before"], strict=True)))
            return manifest, changed, {"what": "undo", "of": last["change"]}

        self._change(change)
        return undone

    def condense(
        self, keep: float, *, into: str | Path | None = None, progress: Callable[[int], object] | None = None
    ) -> Condensed:
        """Keep few objects, chosen so that answers stay nearly what they are; see `memlab.trained.condensation`.

        What is kept is chosen by the stored objects alone. The others are forgotten, as by `forget`, unless the
        condensed memory goes into a folder of its own. How sure answers are may change more than the answers, which
        `calibrate` mends.

        Args:
            keep: share of the objects, above 0 and below 1, or a whole number of them.
            into: a new or empty folder for the condensed memory; None to change this one.
            progress: told numbers of objects that are done.

        Returns:
            what is gone, and accuracy, loss and agreement on the calibration objects before and after.

        Raises:
            ValueError: for a value out of range, a folder with something in it, a memory that reads no objects, or one
                that another process changes meanwhile.
        """
        self._check_reads_objects()
        target = None if into is None else check_new_or_empty("into", Path(into))
        view = self._view
        order = kept_first(view, objects_to_keep(keep, view), progress=progress)
        before, now = (None, None) if view.calibration is None else measured(view, [len(order)], order)
        stays = torch.zeros(len(view.content), dtype=torch.bool, device=order.device)
        stays[order] = True
        gone = view.content.ids[~stays].sort().values.cpu()

        def change(manifest: Manifest) -> tuple[Manifest, dict[int, Segment | None], dict[str, Any]]:
            if manifest.digest != view.digest:
                raise ValueError(f"{in_utf8(self.folder)}: another process has changed it meanwhile; try again")
            note = {"what": "condense", "ids": gone.tolist(), "kept": len(order)}
            return manifest, without(self._folder, manifest, gone), note

        if target is None:
            after = str(self._change(change)["digest"])
        else:
            with self._folder.changing() as manifest:
                _, changed, note = change(manifest)
                after = self._folder.copied(manifest, target, but=changed).commit(manifest, changed, note).digest
        return Condensed(
            folder=target or self.folder,
            kept=len(order),
            ids=gone.tolist(),
            before=before,
            after=now,
            digest_before=view.digest,
            digest_after=after,
            not_undone=NOT_UNDONE if target is None else (),
        )

    def condensation_curve(
        self,
        sizes: Sequence[float] | None = None,
        *,
        progress: Callable[[int], object] | None = None,
    ) -> list[Measured]:
        """What `condense` would leave the memory worth, by size, on the calibration objects; nothing is changed.

        Args:
            sizes: shares or numbers of objects, as of `condense`; None for those of 0.5 to 0.01 that each class has an
                object in.
            progress: told numbers of objects that are done.

        Returns:
            the memory as it is, then each size, the largest first.

        Raises:
            ValueError: for a value out of range, or a memory without calibration objects or that reads no objects.
        """
        self._check_reads_objects()
        view = self._view
        if sizes is None:
            sizes = [share for share in SHARES if len(self.classes) <= round(share * len(self)) < len(self)]
        counts = sorted({objects_to_keep(size, view) for size in sizes}, reverse=True)
        order = kept_first(view, counts[0], progress=progress) if counts else torch.empty(0, dtype=torch.int64)
        return measured(view, counts, order)

    def calibrate(self, inputs: Any = None, labels: Sequence[object] | None = None) -> dict[str, float]:
        """Fit the temperature that probabilities are computed with from now on, by `fit_temperature`.

        Answers and evidence stay what they are. The calibration objects are those held out for validation in training,
        unless others are given, which must be neither in the memory nor seen in training, and take their place.

        Args:
            inputs: as of `predict`.
            labels: name of the class of each.

        Returns:
            ``temperature``, and of the calibration objects ``nll_before`` and ``nll_after``, mean over those whose
            class the memory knows.

        Raises:
            ValueError: if there are no calibration objects, or the labels do not fit them.
        """
        given: tuple[Tensor, tuple[str, ...]] | None = None
        if inputs is not None:
            names = tuple(str(label) for label in labels or ())
            batches = self.kind.batches(inputs, self._model.batch_size)
            queries = torch.cat([self._encoded(batch.raw).cpu() for batch in batches] or [self._content.keys[:0].cpu()])
            if not len(queries) == len(names) > 0:
                raise ValueError(f"labels: {len(names)} of them for {len(queries)} objects; must be one for each")
            given = queries, names
        found: dict[str, float] = {}

        def change(manifest: Manifest) -> tuple[Manifest, dict[int, Segment | None], dict[str, Any]]:
            objects = self._calibration
            if given is None and objects is None:
                raise ValueError("calibrate: the memory has no calibration objects; give inputs and labels of some")
            assert given is not None or objects is not None
            queries, names = given or (objects.queries, objects.labels)  # type: ignore[union-attr]
            scores = self._view.class_scores(queries.to(self._model.device)).cpu()
            numbers = numbers_of(names, self.classes)
            temperature = fit_temperature(scores, numbers)
            known = numbers >= 0
            for name, divisor in (("nll_before", self._view.temperature), ("nll_after", temperature)):
                own = own_nonconformity(scores[known] / divisor, numbers[known])
                found[name] = float(own.mean()) if len(own) else float("nan")
            found["temperature"] = temperature
            measured = CalibrationObjects(queries, names, own_nonconformity(scores, numbers), manifest.digest)
            return self._with_calibration(manifest, measured, temperature), {}, {"what": "calibrate", **found}

        self._change(change)
        return found

    def audit(
        self, *, k: int | None = None, limit: int = 100, progress: Callable[[int], object] | None = None
    ) -> Audit:
        """Read every object with all others: labels that look wrong, near duplicates, how classes hold together.

        It takes as long as to classify as many objects as there are.

        Args:
            k: objects of the evidence; None for 5, or as many as there are.
            limit: suspicious objects that evidence is given for.
            progress: told the number of objects of each batch when it is done.

        Raises:
            ValueError: for a value out of range, a memory of fewer than two objects, or one that reads no objects.
        """
        view = self._view
        k = self._others(view, k)
        return audit(view, k=k, limit=check_whole_number("limit", limit, minimum=0), progress=progress)

    def neighbours(self, identity: int, *, k: int | None = None) -> Answer:
        """What all others say of one of the objects, with the evidence.

        Args:
            identity: which object.
            k: objects of the evidence; None for 5, or as many as there are.

        Raises:
            ValueError: if there is no such object, or as of `audit`.
        """
        view = self._view
        k = self._others(view, k)
        ids = chosen(view.content, identity)
        (place,) = (view.content.ids.cpu() == ids).nonzero()
        return view.answer(view.content.keys[place], k=k, coverage=None, exclude=view.content.ids[place])

    def refresh(self) -> None:
        """Take over what another process has changed; costs a look at one file if nothing has been.

        Raises:
            RefusedMemoryError: if the folder holds no memory any more, a damaged one or another one.
        """
        if not self.is_current:
            self._folder.latest(self._catch_up)

    @property
    def is_current(self) -> bool:
        """Whether no other process has changed the memory since it was last read.

        Raises:
            RefusedMemoryError: if the folder holds no memory any more.
        """
        return self._folder.manifest_bytes() == self._manifest.data

    def journal(self) -> list[dict[str, Any]]:
        """Who changed what, and when: each change with its number, ids and labels, first to last."""
        return self._folder.journal(self._folder.manifest())

    def pictures(self, ids: Sequence[int]) -> dict[int, Tensor]:
        """What is kept of the raw inputs of some objects, by id; nothing of objects that are gone or not kept."""
        wanted: dict[int, list[int]] = {}
        for identity in ids:
            wanted.setdefault(identity // SIZE, []).append(identity)

        def segments(latest: Manifest) -> dict[int, Segment]:
            there = wanted.keys() & latest.segments
            return {number: self._folder.segment(latest, number, raw=True) for number in there}

        found: dict[int, Tensor] = {}
        for number, segment in self._folder.latest(segments).items():
            if segment.raw is not None:
                by_id = dict(zip(segment.ids.tolist(), segment.raw, strict=True))
                found |= {identity: by_id[identity] for identity in wanted[number] if identity in by_id}
        return found

    def save(self, folder: str | Path) -> None:
        """Write a copy with its journal into a new or empty folder, to be moved or loaded anywhere.

        Raises:
            ValueError: if there is something in the folder.
        """
        target = check_new_or_empty("folder", Path(folder))
        with self._folder.changing() as manifest:
            copy = self._folder.copied(manifest, target)
            copy.write(MANIFEST, manifest.data)  # last: with it the copy is whole

    def export_onnx(self, file: str | Path) -> Comparison:
        """Write the encoder with its preprocessing as ONNX, for programs without memlab; see `memlab.trained.export`.

        Returns:
            how its embeddings of stored objects differ from torch's, by rounding alone.

        Raises:
            ValueError: if a package is missing, the encoder cannot be exported, or differs by more.
        """
        kept = self.pictures(self._content.ids.sort().values[:COMPARED].tolist())
        whole = [raw for raw in kept.values() if raw.shape == self.kind.shape and raw.dtype == self.kind.dtype]
        return export_onnx(self._view, Path(file), torch.stack(whole) if whole else None)

    def export_parquet(self, file: str | Path) -> None:
        """Write keys, labels, ids and sources as Parquet, to be read with `export_onnx`'s file.

        Raises:
            ValueError: if a package is missing.
        """
        export_parquet(self._view, Path(file))

    def _stream(self, view: View, inputs: Any, k: int | None, coverage: float | None) -> Iterator[Answer]:
        for batch in self.kind.batches(inputs, self._model.batch_size):
            yield self._answer(view, self._encoded(batch.raw), k, coverage)

    def _answer(self, view: View, queries: Tensor, k: int | None, coverage: float | None) -> Answer:
        if coverage is not None and check_number("coverage", coverage, above=0, below=1):
            view.conformity  # noqa: B018 - to tell at once if there is none
        cells = view.cells()
        if k is None:
            k = min(5, cells)
        check_k(k, available=cells)
        return view.answer(queries, k=k, coverage=coverage)

    def _others(self, view: View, k: int | None) -> int:
        """How many objects are the evidence of what all others say of an object."""
        self._check_reads_objects()
        if len(view.content) < 2:
            raise ValueError("the memory has one object; must have others to read it with")
        available = min(view.cells(), len(view.content) - 1)
        k = min(5, available) if k is None else k
        check_k(k, available=available)
        return k

    def _encoded(self, raw: Tensor) -> Tensor:
        queries = self._model.encode(raw)
        if queries.shape[1:] != self._content.keys.shape[1:]:
            raise RefusedMemoryError(
                f"{in_utf8(self.folder)}: the encoder makes embeddings of {tuple(queries.shape[1:])}, and the keys have"
                f" {tuple(self._content.keys.shape[1:])}"
            )
        return queries

    def _check_reads_objects(self) -> None:
        if not self._manifest.reads_objects:
            raise ValueError(
                f"{in_utf8(self.folder)}: has one key for each class and reads no objects; train with memory=full,"
                " chunked or topk for one that can be taught"
            )

    def _change(
        self, change: Callable[[Manifest], tuple[Manifest, dict[int, Segment | None], dict[str, Any]]]
    ) -> dict[str, Any]:
        """Make a change to the memory as it is on the disk now; what the journal says of it."""
        with self._folder.changing() as manifest:
            if manifest.change != self._manifest.change:
                self._catch_up(manifest)
            manifest, changed, note = change(manifest)
            manifest = self._folder.commit(manifest, changed, note)
        if changed:
            self._content = self._content.replaced(changed, first=manifest.classes)
        if manifest.calibration != self._manifest.calibration:
            self._read_calibration(manifest)
        self._show(manifest)
        return {**note, "digest": manifest.digest}

    def _catch_up(self, manifest: Manifest) -> None:
        """Take over what another process has changed."""
        if manifest.fingerprint != self._manifest.fingerprint:
            raise RefusedMemoryError(f"{in_utf8(self.folder)}: another memory is in its place now; load it again")
        before, now = self._manifest.segments, manifest.segments
        numbers = [number for number in before.keys() | now.keys() if before.get(number) != now.get(number)]
        changed = {number: self._folder.segment(manifest, number) if number in now else None for number in numbers}
        if manifest.calibration != self._manifest.calibration:
            self._calibration = self._read_calibration(manifest)
        if changed:
            self._content = self._content.replaced(changed, first=manifest.classes)
        self._show(manifest)

    def _read_calibration(self, manifest: Manifest) -> CalibrationObjects | None:
        if (noted := manifest.calibration) is None:
            return None
        return read_calibration(self.folder / noted.file, digest=noted.digest, objects=noted.objects)

    def _with_calibration(self, manifest: Manifest, objects: CalibrationObjects, temperature: float) -> Manifest:
        self._folder.write((noted := Calibration(len(objects), objects.digest, temperature)).file, objects.to_bytes())
        self._calibration = objects
        return replace(manifest, calibration=noted)

    def _show(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._view = View(
            self._model,
            self._content,
            reads_objects=manifest.reads_objects,
            calibration=self._calibration,
            temperature=1.0 if manifest.calibration is None else manifest.calibration.temperature,
            digest=manifest.digest,
        )


def load(path: str | Path, *, device: str = "cpu", encoder: nn.Module | None = None) -> TrainedMemory:
    """Open a trained memory. Nothing in the folder is executed.

    Args:
        path: a run folder of ``train.py``, or a folder that `TrainedMemory.save` wrote.
        device: where to compute, as ``cpu`` or ``cuda``.
        encoder: for a memory whose encoder is a class of your own: an instance, which takes the weights.

    Raises:
        RefusedMemoryError: if there is no trained memory, or one that is damaged or does not fit itself.
    """
    given = Path(path)
    for folder in (given, given / FOLDER):
        if (folder / MANIFEST).exists():
            return TrainedMemory(MemoryFolder(folder), device=torch.device(device), encoder=encoder)
    raise RefusedMemoryError(
        f"{in_utf8(given)}: holds no trained memory; must be the folder of a run that came to its end, or one that"
        " memory.save wrote"
    )
