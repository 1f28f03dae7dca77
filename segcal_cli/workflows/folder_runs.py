"""A run on an output place, from its lock to its record. All that ``apply`` and ``convert`` share stands here.

    lock -> what is on record -> each case: up to date, or done and entered in the journal -> tables of all -> record

Killed at any moment, a run leaves whole files, and a journal of what it finished; the next run goes on from there. An
interrupted run writes its record itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from segcal_cli.core.errors import CaseErrors, Unfinished, WriteError
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import failure_records
from segcal_cli.execution.work import Work
from segcal_cli.io import journal
from segcal_cli.io.atomic import remove_temps, write_text
from segcal_cli.io.case_sources import CaseReader, CaseSource
from segcal_cli.io.fingerprints import InputFile, output_entry
from segcal_cli.io.locks import held, no_locks
from segcal_cli.io.outputs import make_folder, refuse_existing
from segcal_cli.io.run_files import RunFiles
from segcal_cli.reporting.documents import json_text
from segcal_cli.workflows.case_inputs import given_folders, input_files
from segcal_cli.workflows.case_keeping import KeepingReader, KeepingWriter, Maker, Task, document_of, made_alike
from segcal_cli.workflows.inputs import Inputs
from segcal_cli.workflows.mapping import Mapped, map_cases
from segcal_cli.workflows.outcome import NOTHING_PRODUCED, FolderCounts
from segcal_cli.workflows.requests import FolderOptions, RunOptions
from segcal_cli.workflows.run_record import (
    counts_of,
    failed_entry,
    kept_entry,
    known_entries,
    run_document,
    undone_entry,
)
from segcal_cli.workflows.run_settings import Settings
from segcal_cli.workflows.running import exit_code_of
from segcal_cli.workflows.tracing import without_folders

INTERRUPTED = 130
"""The exit code on record of a run that was interrupted."""

STANDING = ("done", "skipped")
"""States of cases whose outputs are those of their inputs."""


class FolderRun:
    """One run. ``map`` does the cases; then tables of all cases are written, and the record when the run ends well."""

    def __init__(
        self,
        files: RunFiles,
        settings: Settings,
        inputs: Inputs | None,
        writing: FolderOptions,
        running: RunOptions,
        observer: Observer,
    ) -> None:
        self.files, self.settings, self._inputs = files, settings, inputs
        self.writing, self.running, self.observer = writing, running, observer
        self.known: dict[str, dict[str, Any]] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.failures: tuple[dict[str, str], ...] = ()
        self.outputs: list[dict[str, Any]] = []
        self.started = time.time()
        self.what = ""

    @property
    def inputs(self) -> Inputs:
        """The cases of this run, of one that reads them itself."""
        assert self._inputs is not None, "a run of entries reads nothing"
        return self._inputs

    @classmethod
    def of_entries(
        cls,
        files: RunFiles,
        settings: Settings,
        writing: FolderOptions,
        running: RunOptions,
        observer: Observer,
        entries: Iterable[dict[str, Any]],
    ) -> FolderRun:
        """A run whose cases others have done: what stands for all of them can be written, and the record."""
        run = cls(files, settings, None, writing, running, observer)
        run.entries = {entry["case"]: entry for entry in entries}
        run.failures = tuple(
            {"case": entry["case"], **entry["error"]} for entry in run._ordered() if entry["status"] == "failed"
        )
        return run

    @property
    def own_cases(self) -> list[str]:
        """Ids of the cases of this run, whatever became of them; those that an earlier run left are none."""
        return [case for case, entry in self.entries.items() if entry["status"] != "kept"]

    def refuse_existing(self, paths: Sequence[Path]) -> None:
        """Raise OutputExists unless outputs may be replaced."""
        refuse_existing(paths, overwrite=self.writing.replace)

    def map(
        self,
        reader: CaseReader,
        maker: Maker,
        what: str,
        given: Callable[[CaseSource], Mapping[str, Any]] | None = None,
        beside: Callable[[str], Mapping[str, Path]] | None = None,
    ) -> None:
        """Bring every case up to date. given: what options say of a case, besides its group. beside: case id ->
        role -> a file that it is made from besides.

        Raises CaseErrors where no case came to anything.
        """
        self.what = what
        tasks = self._tasks(given, beside)
        work = Work(
            KeepingReader(reader, self.settings, self.files, self.writing.skip_existing, self.writing.verify),
            KeepingWriter(maker, self.files),
        )
        mapped = map_cases(work, tasks, self.inputs.failures, self.running, self.observer, what)
        self._settle(mapped)
        if mapped.failures and not self.counts.standing:
            raise CaseErrors(*(failure.error for failure in mapped.failures))

    def write(self, name: str, text: str) -> None:
        """Write a file that belongs to no single case."""
        write_text(self.files.folder / name, text, tag=self.files.tag)
        self.outputs.append(output_entry(self.files.folder / name))

    @property
    def counts(self) -> FolderCounts:
        return counts_of(self.entries.values())

    @property
    def exit_code(self) -> int:
        return exit_code_of(self.counts, self.running)

    @property
    def result(self) -> dict[str, Any]:
        """The part of the document that is the same for every command."""
        return {"cases": self.documents, "not_run": self.counts.not_run}

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The cases for ``--json``: those whose outputs are there, in id order."""
        return [document_of(entry) for entry in self._ordered() if entry["status"] in STANDING]

    @property
    def results(self) -> dict[str, Mapping[str, Any]]:
        """Case -> the result on record, for tables of the whole place: of this run's cases, and with
        ``--skip-existing`` of those that earlier runs did alike.
        """
        return {
            entry["case"]: entry["result"]
            for entry in self._ordered()
            if entry["status"] in STANDING
            or (self.writing.skip_existing and entry["key"] is not None and made_alike(entry, self.settings))
        }

    @property
    def first_inputs(self) -> dict[str, str]:
        """Case -> the name of its first prediction file, of all that ``results`` holds."""
        return {case: PurePath(self.entries[case]["inputs"][0]["file"]).name for case in self.results}

    def write_record(self, exit_code: int) -> None:
        """Journal and old record become the record, in one step. Raises WriteError."""
        document = run_document(
            self.files, self.settings, self.started, exit_code, self.counts, self.entries, self.outputs
        )
        write_text(self.files.record, json_text(document), tag=self.files.tag)
        self.files.journal.unlink(missing_ok=True)

    def interrupted(self) -> None:
        """Put on record what was finished: workers may have finished more than this process has heard of."""
        remove_temps(self.files.folder, self.files.tag)
        finished = {entry["case"]: entry for entry in journal.entries(self.files.journal)}
        ids = {source.id for source in self.inputs.sources}
        self._settle(Mapped({case: entry for case, entry in finished.items() if case in ids}, self.inputs.failures))
        self.observer.progress(self.counts.standing, self.counts.cases, self.what)
        with contextlib.suppress(WriteError):
            self.write_record(INTERRUPTED)

    def _tasks(
        self,
        given: Callable[[CaseSource], Mapping[str, Any]] | None,
        beside: Callable[[str], Mapping[str, Path]] | None,
    ) -> list[Task]:
        cases = {case.id: case for case in self.inputs.files}
        folders = given_folders(self.inputs.given, self.inputs.reading)
        tasks = []
        for source in self.inputs.sources:
            files = input_files(cases[source.id], self.inputs.reading, folders)
            others = {} if beside is None else beside(source.id)
            files += tuple(InputFile(role, path, path.name) for role, path in others.items())
            more = {} if given is None else given(source)
            seen = tuple(self.inputs.seen.get(file.path) for file in files)
            tasks.append(Task(source, files, {"group": source.group, **more}, self.known.get(source.id), seen))
        return tasks

    def _settle(self, mapped: Mapped) -> None:
        """The entries of all cases, whatever became of them."""
        self.failures = tuple(failure_records(mapped.failures))
        kept_words = {failure.id: without_folders(failure.error) for failure in mapped.failures}
        entries = dict(mapped.values)
        for failure in self.failures:
            case = failure["case"]
            entries[case] = failed_entry({**failure, "message": kept_words[case]})
        for case in self.inputs.waiting:
            entries[case] = undone_entry(case, "waiting", self.known.get(case))
        for source in self.inputs.sources:
            if source.id not in entries:
                entries[source.id] = undone_entry(source.id, "not_run", self.known.get(source.id))
        for case, known in self.known.items():
            kept = None if case in entries else kept_entry(known, self.files.folder)
            if kept is not None:
                entries[case] = kept
        self.entries = entries

    def _ordered(self) -> list[dict[str, Any]]:
        return [self.entries[case] for case in sorted(self.entries, key=str.encode)]


@contextlib.contextmanager
def running_on(
    files: RunFiles,
    settings: Settings,
    inputs: Inputs,
    writing: FolderOptions,
    running: RunOptions,
    observer: Observer,
) -> Iterator[FolderRun]:
    """Hold the output place for one run; its record is written at the end, also of a run without one good case.

    Raises InUse, LeftToAnother, WriteError.
    """
    make_folder(files.folder)
    with held(files, writing.if_locked) as alone:
        if not alone:
            observer.warn(no_locks(files))
        run = FolderRun(files, settings, inputs, writing, running, observer)
        remove_temps(files.folder, files.tag)
        run.known = known_entries(files, observer)
        try:
            yield run
            # A worker that was killed leaves temps; its case was done again.
            remove_temps(files.folder, files.tag)
            run.write_record(run.exit_code)
        except KeyboardInterrupt:
            run.interrupted()
            raise
        except CaseErrors:
            with contextlib.suppress(WriteError):
                run.write_record(NOTHING_PRODUCED)
            raise
        except WriteError as error:
            if run.counts.standing:
                raise Unfinished(*error.args) from error
            raise
