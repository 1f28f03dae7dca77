"""Shards: one run over many cases, split into N runs that need not know of each other, and joined by ``merge``.

Every shard finds and opens the whole case list, so that all of them mean the same by it, and reads its own cases only:
shard I of N takes every N-th patient of the sorted list, from the I-th. What it comes to goes into a part. A part holds
the state; the first part also holds what remains to be done once all cases have been read, so that merging needs
neither the cases nor the options again.

An estimator of several passes runs in rounds: joining the parts of one round gives a state, which every shard of the
next round begins with (``--resume``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from segcal_cli.core.errors import ArtifactError, SegcalError, UsageError, count_text
from segcal_cli.core.estimator import Estimator
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import Plan, failure_records, one_pass, reads, run_estimator
from segcal_cli.execution.work import Result
from segcal_cli.io.parts import PART, ROUND, NotAPart, PartHeader, digest_of, read_part, write_part
from segcal_cli.io.run_files import Shard
from segcal_cli.workflows.inputs import Inputs
from segcal_cli.workflows.outcome import PARTIAL, Counts, Outcome
from segcal_cli.workflows.requests import RoundOptions
from segcal_cli.workflows.tracing import Traced, named_alone

WHOLE = RoundOptions()
"""One run over all cases."""

SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)


class BadShard(UsageError):
    """A shard that cannot be."""

    template = "--shard {0} is not allowed; give I/N with I from 1 to N"


class OtherRun(ArtifactError):
    """A state that does not fit the run that would go on from it."""

    template = "{0} {1}"


class Case(Protocol):
    """What a shard asks of a case."""

    @property
    def id(self) -> str: ...

    @property
    def group(self) -> str: ...


class Conclusion(Protocol):
    """What remains to be done once all cases have been read: a record of plain data, which travels in parts."""

    def conclude(self, traced: Traced, failures: Sequence[Result], output: Path, observer: Observer) -> Outcome:
        """Write the result. failures: all cases that were left out."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One run over cases, before it begins. sources: all opened cases; failures: those that could not be opened;
    inputs: the list of both.
    """

    command: str
    estimator: Estimator
    reader: Callable[[Any], Any]
    sources: Sequence[Any]
    failures: tuple[Result, ...]
    inputs: Inputs
    conclusion: Conclusion
    what: str


@dataclass(frozen=True, slots=True)
class Rest:
    """What a merge needs beside states. failures: cases that are left out already."""

    estimator: Any
    conclusion: Any
    failures: tuple[Result, ...]
    what: str


@dataclass(frozen=True, slots=True)
class Share:
    """The content of a part. rest: in the first part alone, since all are needed."""

    state: Any
    failures: tuple[Result, ...]
    rest: Rest | None


def is_mine(inputs: Inputs, shard: Shard) -> Callable[[str], bool]:
    """Whether a case is one of a shard: every N-th patient of the sorted list. A patient is never split.

    The list is that of all cases, also of those that could not be opened: shards may differ in what they can open. What
    is wrong with no single case, "", is the first shard's to tell.
    """
    groups = {case.id: case.group for case in inputs.files}
    for case in (*(failure.id for failure in inputs.failures if failure.id), *inputs.waiting):
        groups.setdefault(case, case)
    own = frozenset(sorted(set(groups.values()), key=str.encode)[shard.number - 1 :: shard.count])
    return lambda case: groups[case] in own if case else shard.number == 1


def parse_shard(text: str | None) -> Shard | None:
    """``I/N``. Raises BadShard."""
    if text is None:
        return None
    found = SHARD.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise BadShard(text)
    return Shard(int(found[1]), int(found[2]))


def list_digest(inputs: Inputs) -> str:
    """sha256 over ids, patients and file names of every case of a run, whether it could be opened or not."""
    lines = [
        [
            case.id,
            case.group,
            [*(file.path.name for file in case.predictions), *(file.path.name for file in case.labels)],
            None if case.roi is None else case.roi.name,
        ]
        for case in inputs.files
    ]
    lines.sort(key=lambda line: str(line[0]).encode())
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def carried_out(job: Job, plan: Plan, sharding: RoundOptions, output: Path, observer: Observer) -> Outcome:
    """Read all cases and conclude; or, with ``--shard``, read those of the shard and write its part.

    Raises what reading, fitting and writing raise, NotAPart and OtherRun for a state that does not fit.
    """
    shard = parse_shard(sharding.shard)
    conclusion = digest_of(job.conclusion) if shard is not None or sharding.resume is not None else ""
    rest, number, previous = Rest(job.estimator, job.conclusion, job.failures, job.what), 1, ""
    if sharding.resume is not None:
        rest, number, previous = _resumed(sharding.resume, job, shard, conclusion)
    if shard is None:
        left = {failure.id for failure in rest.failures}
        sources = [source for source in job.sources if source.id not in left]
        traced, failures = run_estimator(rest.estimator, job.reader, sources, plan, observer, job.what)
        return rest.conclusion.conclude(traced, in_order((*rest.failures, *failures)), output, observer)
    # What could not be opened is for the shard to tell whose case it is.
    rest = replace(rest, failures=() if number == 1 else rest.failures)
    left = {failure.id for failure in rest.failures}
    mine = is_mine(job.inputs, shard)
    unopened = [failure for failure in job.failures if failure.id not in left and mine(failure.id)]
    left |= {failure.id for failure in unopened}
    sources = [source for source in job.sources if mine(source.id) and source.id not in left]
    sources = [source for source in sources if reads(rest.estimator, source.id)]
    label = pass_label(job.what, number)
    state, failures = one_pass(rest.estimator, job.reader, sources, plan, observer, label)
    share = Share(state, tuple(map(_named, (*unopened, *failures))), rest if shard.number == 1 else None)
    cases = tuple(sorted({*(source.id for source in sources), *(f.id for f in unopened)}, key=str.encode))
    header = PartHeader(
        PART, job.command, shard.number, shard.count, number, list_digest(job.inputs), conclusion, previous, cases
    )
    return _share_outcome(share, header, write_part(output, header, share), output)


def in_order(failures: Iterable[Result]) -> list[Result]:
    """Failures by case, whoever met them."""
    return sorted(failures, key=lambda failure: failure.id.encode())


def pass_label(what: str, number: int) -> str:
    """What a progress bar calls a pass."""
    return what if number == 1 else f"{what}, pass {number}"


def next_round(rest: Rest, header: PartHeader, output: Path) -> Outcome:
    """Write the state that the next round begins with. header: that of a part of the round that has ended."""
    number = header.number + 1
    state = PartHeader(
        ROUND, header.command, 0, header.shards, number, header.list_digest, header.spec_digest, header.previous, ()
    )
    digest = write_part(output, state, rest)
    n, failed = len(header.cases), len(rest.failures)
    line = (
        f"round {header.number} of {header.command} is joined, and the method reads the cases once more: run each of "
        f"the {header.shards} shards again with --resume {output.name}, and merge their parts"
    )
    return Outcome(
        {"state": {"file": output.name, "sha256": digest}, "round": number, "shards": header.shards},
        Counts(n + failed, n, failed),
        (line,),
        failures=tuple(failure_records(rest.failures)),
    )


def _named(failure: Result) -> Result:
    return Result(failure.id, error=named_alone(failure.error)) if isinstance(failure.error, SegcalError) else failure


def _resumed(path: Path, job: Job, shard: Shard | None, spec_digest: str) -> tuple[Rest, int, str]:
    """What the state says is left to do, the number of the round, and the file's digest."""
    state = read_part(path)
    header = state.header
    if header.kind != ROUND or not isinstance(state.content, Rest):
        raise NotAPart(path, "it is a part; --resume takes the state that segcal merge made of all parts of a round")
    for wrong, what in (
        (header.command != job.command, f"was made by {header.command}, not by {job.command}"),
        (shard is not None and header.shards != shard.count, f"is of a run in {count_text(header.shards, 'shard')}"),
        (header.list_digest != list_digest(job.inputs), "was made from another case list"),
        (header.spec_digest != spec_digest, "was made with other options"),
    ):
        if wrong:
            raise OtherRun(path, what)
    return state.content, header.number, state.digest


def _share_outcome(share: Share, header: PartHeader, digest: str, output: Path) -> Outcome:
    n, failed = len(header.cases), len(share.failures)
    described = {
        "file": output.name,
        "sha256": digest,
        "shard": header.shard,
        "shards": header.shards,
        "round": header.number,
        "cases": list(header.cases),
    }
    return Outcome(
        {"part": described},
        Counts(n, n - failed, failed),
        (f"part {header.shard} of {header.shards}, round {header.number}: join all parts with segcal merge",),
        failures=tuple(failure_records(share.failures)),
        exit_code=PARTIAL if failed else 0,
    )
