"""``merge``: the parts of all shards in, what one run would have written out.

States merge exactly and in any order, and the first part says what remains to be done; so the result has the bytes of
a run that was not split. What does not belong together is refused, with everything that is wrong at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from segcal_cli.core.annotations import OtherType, require_type
from segcal_cli.core.errors import ArtifactError, CaseErrors, UsageError
from segcal_cli.core.estimator import Estimator, require_state
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import reads
from segcal_cli.io.outputs import refuse_existing, refuse_twice, require_file_place
from segcal_cli.io.parts import ROUND, NotAPart, Part, read_part
from segcal_cli.metrics.pooling import PoolMismatch
from segcal_cli.workflows.evaluate import MeasureConclusion, require_table_name
from segcal_cli.workflows.folder_shards import Remaining, all_records, files_of, joined, place_of
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.requests import EvaluateOptions, FolderOptions, MergeOptions, OutputOptions, RunOptions
from segcal_cli.workflows.sharding import Conclusion, Rest, Share, in_order, next_round


class PartsMissing(ArtifactError):
    """Not all shards are there."""

    template = "{0} of {1} {2} missing"


class PartTwice(ArtifactError):
    """One shard in two files."""

    template = "part {0} is given twice: {1} and {2}"


class SharedCase(ArtifactError):
    """A case that two parts have read."""

    template = "parts {0} and {1} both hold {2}"


class OtherList(ArtifactError):
    """A shard of other cases."""

    template = "part {0} was made from another case list"


class OtherSpec(ArtifactError):
    """A shard of the same cases with other options."""

    template = "part {0} was made with other options"


class OtherSplit(ArtifactError):
    """Parts of different runs."""

    template = "{0} is part {1}, {2} is part {3}: they are not of one run"


class UnwantedTable(UsageError):
    """A table of another command's parts."""

    template = "{0} goes with parts of evaluate; these are of {1}"


def run(
    paths: Sequence[Path],
    output: Path,
    tables: MergeOptions,
    writing: OutputOptions,
    observer: Observer,
) -> Outcome:
    """Join the parts and write what they come to: the artifact, the tables, the state of the next round; or join the
    records of shards of ``apply``.

    Raises NotAPart, OtherVersion and the refusals above (together in CaseErrors), and what the method itself refuses.
    """
    asked = {
        field.name: getattr(tables, field.name) for field in fields(tables) if getattr(tables, field.name) is not None
    }
    if all_records(paths):
        return _join_records(paths, output, asked, writing, observer)
    targets = [output, *asked.values()]
    refuse_twice(targets)
    for path in targets:
        require_file_place(path)
    refuse_existing(targets, overwrite=writing.overwrite)
    parts = [_part(path) for path in paths]
    rest = _rest(paths, parts)
    command = parts[0].header.command
    if isinstance(rest.conclusion, MeasureConclusion):
        require_table_name(output)
        rest = replace(rest, conclusion=replace(rest.conclusion, outputs=EvaluateOptions(**asked)))
        refuse_existing(rest.conclusion.files(output), overwrite=writing.overwrite)
    else:
        _refuse_tables(asked, command)
    ordered = sorted(parts, key=lambda part: part.header.shard)
    observer.progress(0, len(ordered), "merging")
    shares: list[Share] = [part.content for part in ordered]
    failures = in_order(failure for share in shares for failure in share.failures)
    cases = tuple(sorted((case for part in ordered for case in part.header.cases), key=str.encode))
    if failures and len(failures) == len(cases):
        raise CaseErrors(*(failure.error for failure in (*rest.failures, *failures)))
    _require_states(paths, parts, rest)
    by_shard = sorted(zip(paths, parts, strict=True), key=lambda one: one[1].header.shard)
    state = _merged(rest.estimator, [(path, part.content.state) for path, part in by_shard])
    result = rest.estimator.finish(state)
    left = in_order((*rest.failures, *failures))
    if isinstance(result, Estimator):
        following = replace(rest, estimator=result, failures=tuple(left))
        done = frozenset(cases) - {failure.id for failure in failures}
        header = replace(ordered[0].header, cases=tuple(case for case in cases if case in done))
        return next_round(following, header, output)
    return rest.conclusion.conclude(result, left, output, observer)


def _join_records(
    paths: Sequence[Path], output: Path, asked: Mapping[str, Path], writing: OutputOptions, observer: Observer
) -> Outcome:
    """The records of shards of ``apply``, where their outputs lie. Raises OtherPlace, and as ``run``."""
    place = place_of(paths, output)
    parts = [_part(files_of(path).part) for path in paths]
    rest = _rest(paths, parts)
    _refuse_tables(asked, parts[0].header.command)
    if not isinstance(rest.conclusion, Remaining):
        raise NotAPart(paths[0], "what stands beside it is the part of another command")
    ordered = sorted(
        zip(paths, (part.header for part in parts), strict=True), key=lambda one: files_of(one[0]).part.name
    )
    return joined(ordered, rest.conclusion, place, FolderOptions(writing.overwrite), RunOptions(), observer)


def _refuse_tables(asked: Mapping[str, Path], command: str) -> None:
    """Raise UnwantedTable for tables that only evaluate has."""
    for name in asked:
        raise UnwantedTable(f"--{name.replace('_', '-')}", command)


def _part(path: Path) -> Part:
    part = read_part(path)
    if part.header.kind == ROUND:
        raise NotAPart(path, "it is the state between two rounds; shards go on from it with --resume")
    if not isinstance(part.content, Share):
        raise NotAPart(path, "it holds no share of a run")
    return part


def _rest(paths: Sequence[Path], parts: Sequence[Part]) -> Rest:
    """What the first part says is left to do, if all parts belong together. Raises what is wrong, all of it."""
    _refuse_other_runs(paths, parts)
    owners: dict[int, list[Path]] = defaultdict(list)
    for path, part in zip(paths, parts, strict=True):
        owners[part.header.shard].append(path)
    count = parts[0].header.shards
    errors: list[ArtifactError] = []
    missing = [shard for shard in range(1, count + 1) if shard not in owners]
    if missing:
        named = f"{'part' if len(missing) == 1 else 'parts'} {', '.join(map(str, missing))}"
        errors.append(PartsMissing(named, count, "is" if len(missing) == 1 else "are"))
    errors += [PartTwice(shard, *files[:2]) for shard, files in sorted(owners.items()) if len(files) > 1]
    ordered = sorted(parts, key=lambda part: part.header.shard)
    errors += [OtherList(shard) for shard in _odd(ordered, "list_digest")]
    if not errors:
        errors += [OtherSpec(shard) for shard in _odd(ordered, "spec_digest")]
    errors += _shared_cases(ordered)
    if errors:
        raise errors[0] if len(errors) == 1 else CaseErrors(*errors)
    rest: Any = ordered[0].content.rest
    if not isinstance(rest, Rest):
        raise NotAPart(paths[parts.index(ordered[0])], "it does not say what it is a part of")
    return rest


def _require_states(paths: Sequence[Path], parts: Sequence[Part], rest: Rest) -> None:
    """Raise NotAPart unless what remains can be done, and every state is the estimator's after its part's cases."""
    first, _ = min(zip(paths, parts, strict=True), key=lambda pair: pair[1].header.shard)
    if isinstance(rest.conclusion, Remaining):
        raise NotAPart(first, "it belongs to the record beside it; merge the records of the shards")
    try:
        require_type(rest.estimator, Estimator, "estimator")
        require_type(rest.conclusion, Conclusion, "conclusion")
        if isinstance(rest.conclusion, MeasureConclusion):
            rest.conclusion.require_of(rest.estimator)
    except OtherType as error:
        raise NotAPart(first, f"its records are damaged ({error})") from error
    for path, part in zip(paths, parts, strict=True):
        failed = {failure.id for failure in part.content.failures}
        done = {case for case in part.header.cases if case not in failed and reads(rest.estimator, case)}
        try:
            require_state(rest.estimator, part.content.state, done)
        except OtherType as error:
            raise NotAPart(path, f"its records are damaged ({error})") from error


def _merged(estimator: Estimator, states: Sequence[tuple[Path, Any]]) -> Any:
    """All states in one. Raises NotAPart for the first that does not go with those before it."""
    (_, state), *others = states
    for path, other in others:
        try:
            state = estimator.merge(state, other)
        except PoolMismatch as error:
            raise NotAPart(path, f"its records are damaged ({error})") from error
    return state


def _refuse_other_runs(paths: Sequence[Path], parts: Sequence[Part]) -> None:
    """Raise OtherSplit for parts of another command, number of shards, or round."""

    def named(part: Part) -> str:
        header = part.header
        return f"{header.shard} of {header.shards} of {header.command}, round {header.number}"

    def of(part: Part) -> tuple[str, int, int, str]:
        return part.header.command, part.header.shards, part.header.number, part.header.previous

    for path, part in zip(paths, parts, strict=True):
        if of(part) != of(parts[0]):
            raise OtherSplit(paths[0], named(parts[0]), path, named(part))


def _odd(parts: Sequence[Part], digest: str) -> list[int]:
    """Shards whose digest is not that of most; of the first among equals."""
    found = [getattr(part.header, digest) for part in parts]
    usual = Counter(found).most_common(1)[0][0]
    return [part.header.shard for part, one in zip(parts, found, strict=True) if one != usual]


def _shared_cases(parts: Sequence[Part]) -> list[ArtifactError]:
    """One SharedCase for each pair of different shards that hold a case both."""
    owner: dict[str, int] = {}
    found: dict[tuple[int, int], str] = {}
    for part in parts:
        for case in part.header.cases:
            first = owner.setdefault(case, part.header.shard)
            if first != part.header.shard:
                found.setdefault((first, part.header.shard), case)
    return [SharedCase(first, second, case) for (first, second), case in sorted(found.items())]
