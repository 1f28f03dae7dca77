"""Shards of ``apply``: each brings its own cases up to date, and merging makes of their records that of one run.

Cases are written by their shard, under a lock and a record of its own. What stands for all cases (tables, a report on
drift) is written when the records are merged: how is said in a part beside the record of each shard, whose digests
tell whether the shards belong together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from segcal_cli.core.annotations import OtherType
from segcal_cli.core.errors import ArtifactError, FormatError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.core.paths import real_path
from segcal_cli.io.documents import read_json
from segcal_cli.io.locks import held, no_locks
from segcal_cli.io.outputs import refuse_existing
from segcal_cli.io.parts import PART, NotAPart, PartHeader, digest_of, write_part
from segcal_cli.io.run_files import RunFiles, Shard
from segcal_cli.io.seals import is_sealed
from segcal_cli.workflows.folder_runs import STANDING, FolderRun
from segcal_cli.workflows.inputs import Inputs
from segcal_cli.workflows.made_cases import is_made_by
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.requests import FolderOptions, RunOptions, ShardOptions
from segcal_cli.workflows.run_record import sound_entries
from segcal_cli.workflows.run_settings import Settings
from segcal_cli.workflows.sharding import Rest, Share, is_mine, list_digest

RECORD_NAME = re.compile(r"(?:(?P<table>.+)\.)?segcal-run\.shard-(?P<number>[0-9]{3,6})-of-(?P<count>[0-9]{3,6})\.json")


EVERY_CASE = ShardOptions()
"""One run over all cases."""


class NotOfShards(UsageError):
    """An option that has no meaning for a share of the cases."""

    template = "{0} does not go with --shard: {1}"


class OtherPlace(UsageError):
    """Records are merged where their outputs lie."""

    template = "-o {0}: the outputs of these shards belong to {1}; records are merged there"


class OutputGone(ArtifactError):
    """A record of what is not there any more."""

    template = "{0}: {1} of {2} is gone; run this shard again with --skip-existing"


class Tables(Protocol):
    """What stands for all cases of a place: a record of plain data, which travels in parts."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files that it writes, in the run's folder."""
        ...

    def conclude(self, run: FolderRun) -> Outcome:
        """Write the files, from what is on record of every case, and say what there is to say."""
        ...


@dataclass(frozen=True, slots=True)
class Remaining:
    """What merging needs to know of a run on an output place."""

    settings: Settings
    tables: Tables
    skip_existing: bool


def share_of(inputs: Inputs, shard: Shard | None) -> Inputs:
    """The inputs of one shard; patients stay whole."""
    if shard is None:
        return inputs
    mine = is_mine(inputs, shard)
    return replace(
        inputs,
        opened=replace(inputs.opened, sources=tuple(source for source in inputs.sources if mine(source.id))),
        failures=tuple(failure for failure in inputs.failures if mine(failure.id)),
        files=tuple(case for case in inputs.files if mine(case.id)),
        waiting=tuple(case for case in inputs.waiting if mine(case)),
    )


def refuse_of_shards(flag: str, value: object, why: str) -> None:
    """Raise NotOfShards for an option that was given."""
    if value is not None:
        raise NotOfShards(flag, why)


def concluded(run: FolderRun, tables: Tables, inputs: Inputs) -> Outcome:
    """The end of a run whose cases are done: the tables; or the part of a shard. inputs: all cases, not the shard's."""
    shard = run.files.shard
    if shard is None:
        return tables.conclude(run)
    remaining = Remaining(run.settings, tables, run.writing.skip_existing)
    # Options on record that change nothing, such as the number of jobs, may differ between shards.
    changing = replace(remaining, settings=replace(run.settings, recorded={}))
    header = PartHeader(
        kind=PART,
        command=run.settings.command,
        shard=shard.number,
        shards=shard.count,
        number=1,
        list_digest=list_digest(inputs),
        spec_digest=digest_of(changing),
        previous="",
        cases=tuple(sorted(run.own_cases, key=str.encode)),
    )
    rest = Rest(None, remaining, (), run.what) if shard.number == 1 else None
    write_part(run.files.part, header, Share(None, (), rest))
    line = f"shard {shard.number} of {shard.count}: join all with segcal merge {run.files.record.name} ..."
    result = {**run.result, "shard": {"number": shard.number, "count": shard.count, "record": run.files.record.name}}
    return Outcome(result, run.counts, (line,), failures=run.failures, exit_code=run.exit_code)


def is_record(path: Path) -> bool:
    """Whether a file is called as the record of a shard."""
    return RECORD_NAME.fullmatch(path.name) is not None


def files_of(path: Path) -> RunFiles:
    """The files of the shard whose record this is. Raises NotAPart."""
    found = RECORD_NAME.fullmatch(path.name)
    if found is None:
        raise NotAPart(path, "it is not called as the record of a shard")
    return RunFiles(path.parent, found["table"] or "", Shard(int(found["number"]), int(found["count"])))


def place_of(records: Sequence[Path], output: Path) -> RunFiles:
    """The whole run that these shards are of. Raises NotAPart, OtherPlace."""
    places = [replace(files_of(path), shard=None) for path in records]
    for place in places:
        if real_path(place.target) != real_path(output):
            raise OtherPlace(output, place.target)
    return places[0]


def joined(
    records: Sequence[tuple[Path, PartHeader]],
    remaining: Remaining,
    place: RunFiles,
    writing: FolderOptions,
    running: RunOptions,
    observer: Observer,
) -> Outcome:
    """Make one record of the shards' and write the tables. records: of each shard, with the header of its part.

    Raises NotAPart, OutputGone, OutputExists, InUse, WriteError.
    """
    refuse_existing(
        [place.record, *(place.folder / name for name in remaining.tables.names)], overwrite=writing.overwrite
    )
    with held(place, writing.if_locked) as alone:
        if not alone:
            observer.warn(no_locks(place))
        documents = [_document(path) for path, _ in records]
        entries = [
            _entries(path, header, document) for (path, header), document in zip(records, documents, strict=True)
        ]
        for (path, _), own in zip(records, entries, strict=True):
            _require_results(path, remaining.settings.command, own)
            _require_outputs(path, own)
        run = FolderRun.of_entries(
            place,
            remaining.settings,
            replace(writing, skip_existing=remaining.skip_existing),
            running,
            observer,
            (entry for own in entries for entry in own),
        )
        run.outputs = list({entry["file"]: entry for one in documents for entry in one.get("outputs", ())}.values())
        outcome = remaining.tables.conclude(run)
        run.write_record(run.exit_code)
    return outcome


def _entries(path: Path, header: PartHeader, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cases of a shard's record. Raises NotAPart unless they are sound, and those that the shard has read."""
    try:
        entries = sound_entries(document)
    except OtherType as error:
        raise NotAPart(path, f"its records are damaged ({error})") from error
    own = {entry["case"] for entry in entries if entry["status"] != "kept"}
    other = sorted(own.symmetric_difference(header.cases))
    if other:
        raise NotAPart(path, f"it is not of the cases of its shard ({other[0]})")
    return entries


def _require_results(path: Path, command: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise NotAPart unless every case that a shard has done came to what the command makes."""
    for entry in entries:
        if entry["status"] in STANDING and not is_made_by(command, entry["result"]):
            raise NotAPart(path, f"its record of {entry['case']} is damaged")


def _require_outputs(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise OutputGone unless what a shard has written is there."""
    for entry in entries:
        for output in entry["outputs"] if entry["status"] in STANDING else ():
            if not (path.parent / output["file"]).is_file():
                raise OutputGone(path, output["file"], entry["case"])


def _document(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
    except FormatError as error:
        raise NotAPart(path, str(error).removeprefix(f"{path}: ")) from error
    if not isinstance(document, dict) or not str(document.get("schema", "")).startswith("segcal/run/"):
        raise NotAPart(path, "it is no record of a run")
    if not is_sealed(document):
        raise NotAPart(path, "it was changed since it was written (its seal does not fit)")
    return document


def all_records(paths: Iterable[Path]) -> bool:
    """Whether these are records of shards, and not parts."""
    return all(is_record(path) for path in paths)
