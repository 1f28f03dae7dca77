"""Tracing: what reading the cases showed, gathered beside whatever an estimator learns from them.

One case can look fine and the set still be unusable: every prediction a hard mask, one scan under two names, a scan
that the calibrator has seen. Those rules need the facts of all cases, and stand here once for every command.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.case import Case, CaseFacts
from segcal_cli.core.errors import CaseErrors, OverlapError, SegcalError, count_text, first_line
from segcal_cli.core.estimator import Estimator, require_cases, require_state
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import reads
from segcal_cli.execution.work import Result
from segcal_cli.io.case_files import SamePrediction
from segcal_cli.io.checks import OnlyHardMasks, RoundedSoftmax
from segcal_cli.io.problems import raise_all


class SeenCases(OverlapError):
    """Cases that an artifact was fitted on."""

    template = "{0} used to fit {1}: {2}; use others, or --allow-overlap"


@dataclass(frozen=True, slots=True)
class Traced:
    """What an estimator came to, and the facts of the cases that it saw, by case id."""

    result: Any
    facts: Mapping[str, CaseFacts]


@dataclass(frozen=True, slots=True)
class WithFacts:
    """An estimator that also gathers facts; its result is Traced.

    judge: looks at the facts of the first pass before anything is computed from them, and raises what they forbid.
    """

    inner: Estimator
    facts: Mapping[str, CaseFacts] | None = None
    judge: Callable[[Mapping[str, CaseFacts]], None] | None = None

    def empty(self) -> tuple[Any, dict[str, CaseFacts]]:
        return self.inner.empty(), {}

    def update(self, state: tuple[Any, dict[str, CaseFacts]], case: Case) -> tuple[Any, dict[str, CaseFacts]]:
        return self.inner.update(state[0], case), {**state[1], case.id: case.facts}

    def merge(
        self, a: tuple[Any, dict[str, CaseFacts]], b: tuple[Any, dict[str, CaseFacts]]
    ) -> tuple[Any, dict[str, CaseFacts]]:
        return self.inner.merge(a[0], b[0]), {**a[1], **b[1]}

    def reads(self, case: str) -> bool:
        """See ``core/estimator.py``."""
        return reads(self.inner, case)

    def for_update(self) -> WithFacts:
        """The copy that travels with every case; see ``core/estimator.py``."""
        light = getattr(self.inner, "for_update", None)
        return self if light is None else WithFacts(light())

    def require_state(self, state: tuple[Any, dict[str, CaseFacts]], cases: AbstractSet[str]) -> None:
        """See ``core/estimator.py``."""
        require_cases(state[1], cases)
        require_state(self.inner, state[0], cases)

    def finish(self, state: tuple[Any, dict[str, CaseFacts]]) -> Any:
        facts = {**(self.facts or {}), **state[1]}
        facts = dict(sorted(facts.items(), key=lambda item: item[0].encode()))
        if self.facts is None and self.judge is not None:
            self.judge(facts)
        result = self.inner.finish(state[0])
        if isinstance(result, Estimator):
            return WithFacts(result, facts)
        return Traced(result, facts)


def report_facts(facts: Mapping[str, CaseFacts], observer: Observer) -> None:
    """Say what reading showed: warnings of cases, the share of padding, proofs that prove the shape only."""
    for case, fact in facts.items():
        for warning in fact.warnings:
            observer.warn(warning, case)
    shares = [fact.padding_share for fact in facts.values()]
    if any(shares):
        observer.note(
            f"padding outside the model's crop: {100 * sum(shares) / len(shares):.1f} % of the voxels on average; "
            "left out of calibration, kept in overlap and volumes"
        )
    empty = [case for case, fact in facts.items() if fact.proof == "background"]
    if empty:
        many = count_text(len(empty), "segmentation holds", "segmentations hold")
        observer.note(f"{many} background only: the shape is proved, the place is not")


def refuse_hard(facts: Mapping[str, CaseFacts], v1_files: Mapping[str, Path] | None = None) -> None:
    """Raise OnlyHardMasks if no prediction holds a value strictly inside (0, 1).

    v1_files: files of nnU-Net v1, one release of which rounded; if they are all, CaseErrors of RoundedSoftmax.
    """
    if not facts or not all(fact.hard for fact in facts.values()):
        return
    rounded = []
    for case, path in (v1_files or {}).items():
        rounded.append(RoundedSoftmax(path))
        rounded[-1].case = case
    if len(rounded) == len(facts):
        raise CaseErrors(*rounded)
    raise OnlyHardMasks(len(facts))


def refuse_copies(facts: Mapping[str, CaseFacts]) -> None:
    """Raise SamePrediction for predictions that are there twice."""
    raise_all(duplicates(facts))


def without_folders(error: Exception | None) -> str:
    """The error's message with names of files in place of their paths, for what is kept or passed on."""
    return first_line(named_alone(error) if isinstance(error, SegcalError) else error or Exception())


def named_alone(error: SegcalError) -> SegcalError:
    """The same error with names of files in place of their paths."""
    named = type(error)(*(_name_of(argument) for argument in error.args))
    named.case = error.case
    return named


def names_alone(record: Any) -> Any:
    """A record with names in place of paths that are text, for what is kept or passed on."""
    return replace(record, **{field.name: _name_of(getattr(record, field.name)) for field in fields(record)})


def _name_of(argument: object) -> object:
    if isinstance(argument, SegcalError):
        return without_folders(argument)
    if isinstance(argument, Path) or (isinstance(argument, str) and os.sep in argument and Path(argument).exists()):
        return Path(argument).name
    return argument


def duplicates(facts: Mapping[str, CaseFacts]) -> list[SamePrediction]:
    """Pairs of cases that hold the same numbers."""
    owner: dict[str, str] = {}
    found = []
    for case, fact in facts.items():
        identity = fact.digest or fact.checksum
        first = owner.setdefault(identity, case) if identity else case
        if first != case:
            found.append(SamePrediction(first, case))
    return found


def seen_by(artifact: Artifact, cases: Iterable[tuple[str, str]], digests: Mapping[str, str]) -> list[str]:
    """Ids of cases (id, group) that the artifact was fitted on: by id, by patient, or by what was read."""
    header = artifact.header
    ids, groups = set(header.case_ids), set(header.group_ids)
    known = set(header.case_digests.values())
    return [case for case, group in cases if case in ids or group in groups or (digests.get(case) or None) in known]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What artifacts had seen when they were fitted. ids: of cases here that were among it, or whose patient was;
    digests: of the predictions, which tell a copy under another name.
    """

    ids: frozenset[str]
    digests: frozenset[str]

    @classmethod
    def by(cls, artifacts: Iterable[Artifact], cases: Sequence[tuple[str, str]]) -> Fitted:
        """cases: (id, group) of all cases here."""
        ids: set[str] = set()
        digests: set[str] = set()
        for artifact in artifacts:
            known = set(artifact.header.case_ids)
            ids.update(seen_by(artifact, cases, {}))
            digests.update(digest for case, digest in artifact.header.case_digests.items() if digest and case in known)
        return cls(frozenset(ids), frozenset(digests))

    def holds(self, case: Case) -> bool:
        """Whether a case that was read is one of them."""
        return case.id in self.ids or case.facts.digest in self.digests


def refuse_seen(
    artifact: Artifact, name: Path, cases: Sequence[tuple[str, str]], digests: Mapping[str, str], *, allow: bool
) -> bool:
    """Raise SeenCases for cases that the artifact was fitted on, unless allowed. Returns whether there are any."""
    seen = seen_by(artifact, cases, digests)
    if seen and not allow:
        shown = ", ".join(seen[:10]) + (", ..." if len(seen) > 10 else "")
        raise SeenCases(count_text(len(seen), "case was", "cases were"), name, shown)
    return bool(seen)


def hint_at_groups(
    artifact: Artifact, name: Path, cases: Sequence[tuple[str, str]], rule: str | None, observer: Observer
) -> None:
    """Warn where an artifact knows patients, and nobody told the cases (id, group) here apart. rule: of --groups."""
    header = artifact.header
    by_patient = any(group != case for case, group in zip(header.case_ids, header.group_ids, strict=True))
    if rule is None and by_patient and all(group == case for case, group in cases):
        observer.warn(
            f"{name.name} was fitted with patients as units ({header.n_groups} of "
            f"{count_text(header.n_cases, 'case')}), and here "
            "each case is taken as a patient of its own: give --groups, or scans of patients of the fit go unnoticed"
        )


def after_dropping(failures: Sequence[Result], done: int) -> str:
    """The end of a guarantee where cases were left out; "" where none was."""
    return dropping_clause(len(failures), done)


def dropping_clause(failed: int, done: int) -> str:
    """The same from numbers: how many cases failed, how many are left."""
    if not failed:
        return ""
    return (
        f" After leaving out {failed} of {count_text(done + failed, 'case')}; it holds only if they did not fail for a "
        "reason related to their scores."
    )
