"""Pairing: which prediction belongs to which label.

The only thing that ties them is the case id, and a wrong tie makes every later number wrong without a sign. So ids
are read off file names by fixed rules, nothing is matched by likeness, and whatever is left over or there twice is
said. Files are never opened here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from segcal_cli.core.errors import NoCaseError, PairingError, UsageError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.paths import real_path
from segcal_cli.io.case_files import CROSS_VALIDATION, CaseFiles, LabelFile, Pairing, PredictionFile, missing_labels
from segcal_cli.io.case_ids import BadCaseId, byte_order, common_tail, examples, fits_file_name
from segcal_cli.io.class_files import (
    class_layout,
    place,
    spelling_clashes,
    whole_case,
    without_arrays,
    without_companions,
    without_proofs,
)
from segcal_cli.io.folders import VOLUME_FOLDERS, Listing, Siblings, expand_folders, list_folder
from segcal_cli.io.groups import Groups
from segcal_cli.io.patterns import BadPattern, Match, Pattern
from segcal_cli.io.problems import Problem, raise_all
from segcal_cli.io.proposals import propose_affix, propose_layout
from segcal_cli.io.suffixes import require_suffix, split_suffix, unread

FOLD = re.compile(r"fold[_-]?\d+", re.IGNORECASE)
"""A folder of one fold of a cross-validation, as nnU-Net names it."""


class SameFolder(UsageError):
    """One folder for both inputs, so that every prediction would be its own label."""

    template = "PREDICTIONS and LABELS are the same folder"


class NoCaseMatched(NoCaseError):
    """Nothing pairs. Arguments: what each folder has, the proposal of a pattern (or "")."""

    template = "no case matched: {0}; see segcal pairs, --pattern{1}"


class MissingRegions(PairingError):
    """Regions of interest were asked for, and cases have none. Arguments: how many, with a verb, where, their ids."""

    template = "{0} no region of interest in {1}: {2}"


@dataclass(frozen=True, slots=True)
class Found:
    """The files behind one argument, by case id. samples: those of all cases. single: whether it is a file."""

    given: Path
    cases: Mapping[str, list[Match]]
    pattern: Pattern | None = None
    samples: tuple[str, ...] = ()
    single: bool = False
    notes: tuple[str, ...] = ()

    @property
    def first_paths(self) -> dict[str, Path]:
        """A file of each case."""
        return {case: matches[0].path for case, matches in self.cases.items()}

    def of(self, case: str, space: LabelSpace | None) -> tuple[Match, ...]:
        """The files of a case, complete; none where the case is not there. Raises what whole_case raises."""
        matches = self.cases.get(case, [])
        if not matches:
            return ()
        return whole_case(case, matches, space, self.samples, partial(place, self.pattern, matches[0]))

    def renamed(self, case: str) -> Found:
        """One file for one case: given beside a single prediction it belongs to it, whatever its name."""
        files = [match for matches in self.cases.values() for match in matches]
        return replace(self, cases={case: files} if files else {})


def pair(
    predictions: Path,
    labels: Path | None = None,
    *,
    pattern: str | None = None,
    label_pattern: str | None = None,
    space: LabelSpace | None = None,
    roi: Path | None = None,
    groups: Groups | None = None,
) -> Pairing:
    """Cases of PREDICTIONS, each with its label if LABELS are given; both may be a folder, a file or folders by ``*``.

    space: the class table, which one file per class needs. Every problem of a case is collected in the result, a
    prediction without label too. Raises NoSuchInput, SameFolder, BadPattern, NoCaseMatched, UnreadFormat.
    """
    if labels is not None and predictions.is_dir() and labels.is_dir() and real_path(predictions) == real_path(labels):
        raise SameFolder
    predicted = find_files(predictions, _compiled(pattern, space, "--pattern"), space, proofs=True)
    truth = Found(labels or predictions, {})
    regions = Found(roi or predictions, {})
    if labels is not None:
        truth = find_files(labels, _compiled(label_pattern, space, "--label-pattern"), space)
    if roi is not None:
        regions = find_files(roi, None, None)
    if predicted.single and predicted.cases:
        truth, regions = (found.renamed(*predicted.cases) if found.single else found for found in (truth, regions))
    if not predicted.cases or (labels is not None and not predicted.cases.keys() & truth.cases.keys()):
        raise _no_case(predicted, truth if labels is not None else None, space)

    clashes = spelling_clashes(predicted.first_paths) | spelling_clashes(truth.first_paths)
    problems = [Problem(case, error) for case, error in clashes.items() if error.args[0] == case]
    siblings = Siblings()
    cases = []
    for case in sorted(predicted.cases.keys() - clashes.keys(), key=byte_order):
        try:
            cases.append(_case(case, predicted, truth, regions, space, groups, siblings))
        except PairingError as error:
            problems.append(Problem(case, error))
    unlabelled = missing_labels(cases)
    if labels is not None and unlabelled is not None:
        problems.append(Problem("", unlabelled))
    bare = [case.id for case in cases if case.roi is None]
    if roi is not None and bare:
        many = count_text(len(bare), "prediction has", "predictions have")
        problems.append(Problem("", MissingRegions(many, roi, ", ".join(bare))))
    spare = sorted(truth.cases.keys() - predicted.cases.keys(), key=byte_order)
    many = count_text(len(spare), "label has", "labels have")
    notes = [f"{labels}: {many} no prediction: {examples(spare)}"] if spare else []
    return Pairing(tuple(cases), (*predicted.notes, *truth.notes, *notes), tuple(problems))


def find_files(given: Path, pattern: Pattern | None, space: LabelSpace | None, *, proofs: bool = False) -> Found:
    """The files behind one argument, by case id.

    proofs: whether an image beside an array is its proof (predictions); otherwise the array is left aside (labels).
    Raises NoSuchInput, UnreadFormat.
    """
    if given.is_file():
        require_suffix(given)
        match = _flat([Match(given, given.parent, split_suffix(given.name)[0])])[0]
        named = match if pattern is None else pattern.match_file(given)
        return Found(given, {named.case: [named]} if named else {}, pattern, single=True)
    if given.suffix.lower() in VOLUME_FOLDERS:
        raise unread(given)
    roots = expand_folders(given)
    listings = {root: list_folder(root) for root in roots}
    if pattern is not None:
        matches = [match for root in roots for match in pattern.matches(root)]
    else:
        names = [(root, name) for root, listing in listings.items() for name in listing.files]
        matches = [Match(root / name, root, split_suffix(name)[0]) for root, name in names]
    matches = without_companions(without_proofs(matches)) if proofs else without_arrays(matches)
    notes = _left_out(given, listings, found_some=bool(matches))
    if pattern is None:
        layout = class_layout(matches, space, "--pattern")
        pattern, matches = layout if layout else (None, _flat(matches))
    else:
        strangers = [name for root in roots for name in pattern.strangers(root)]
        if strangers:
            found = count_text(len(strangers), "file is", "files are")
            notes.append(f"{given}: {found} of no class of the class table: {examples(strangers)}")
    cases: dict[str, list[Match]] = {}
    for match in matches:
        cases.setdefault(match.case, []).append(match)
    samples = sorted({match.sample for match in matches if match.sample is not None}, key=byte_order)
    return Found(given, cases, pattern, tuple(samples), notes=tuple(notes))


def source_of(match: Match, found: Found | None = None) -> str:
    """CROSS_VALIDATION for what a fold predicted on its own validation cases; "" for everything else.

    That is nnU-Net's ``fold_K/validation``, or any folders of folds that a ``*`` joined. Folds that are samples of one
    case all predicted the same scan, which none of them validated.
    """
    if match.sample is not None:
        return ""
    parts = match.path.parts[:-1]
    if len(parts) > 1 and FOLD.fullmatch(parts[-2]) and parts[-1] == "validation":
        return CROSS_VALIDATION
    if found is None:
        return ""
    joined: tuple[str, ...] = ()
    if "*" in str(found.given) and not found.given.exists():
        joined = parts[next(index for index, part in enumerate(found.given.parts) if "*" in part) :]
    elif found.pattern is not None and found.pattern.joins:
        joined = parts[1 - found.pattern.depth :]
    return CROSS_VALIDATION if any(FOLD.fullmatch(part) for part in joined) else ""


def add_proofs(
    case: str, files: Iterable[Match], masks: Sequence[Match], siblings: Siblings
) -> tuple[PredictionFile, ...]:
    """Prediction files with the segmentations beside them; what is given as the truth is none by the model."""
    made = []
    for match in files:
        proof = siblings.proof_of(case, match.path)
        if proof is not None and real_path(proof) in {real_path(mask.path) for mask in masks}:
            proof = None
        made.append(PredictionFile(match.path, match.sample, match.class_name, proof))
    return tuple(made)


def _case(
    case: str,
    predicted: Found,
    truth: Found,
    regions: Found,
    space: LabelSpace | None,
    groups: Groups | None,
    siblings: Siblings,
) -> CaseFiles:
    """One case. Raises PairingError."""
    if not fits_file_name(case):
        raise BadCaseId(predicted.first_paths[case], case)
    files = predicted.of(case, space)
    masks = truth.of(case, space)
    region = regions.of(case, None)
    return CaseFiles(
        id=case,
        group=case if groups is None else groups.of(case),
        predictions=add_proofs(case, files, masks, siblings),
        labels=tuple(LabelFile(match.path, match.class_name) for match in masks),
        roi=region[0].path if region else None,
        source=source_of(files[0], predicted),
    )


def _left_out(given: Path, listings: Mapping[Path, Listing], found_some: bool) -> list[str]:
    """A note on files that segcal does not read. Raises UnreadFormat, once per kind, if there is nothing else."""
    paths = [root / name for root, listing in listings.items() for name in listing.unread]
    if not paths:
        return []
    if not found_some and not any(listing.files or listing.folders for listing in listings.values()):
        kinds: dict[str, Path] = {}
        for path in paths:
            kinds.setdefault(path.suffix.lower(), path)
        raise_all([unread(path) for path in kinds.values()])
    shown = examples([path.name for path in paths])
    kind = "of a kind that segcal does not read"
    found = count_text(len(paths), f"file {kind} is", f"files {kind} are")
    return [f"{given}: {found} left out: {shown}"]


def _compiled(text: str | None, space: LabelSpace | None, option: str) -> Pattern | None:
    if text is None:
        return None
    pattern = Pattern(text, () if space is None else space.names, option)
    if "class" in pattern.fields and space is None:
        raise BadPattern(option, text, "{class} needs the class table; give --classes")
    return pattern


def _flat(matches: list[Match]) -> list[Match]:
    """Matches whose case is the whole stem, without the tail that all of them have."""
    tail = common_tail(match.case for match in matches)
    return [Match(match.path, match.root, match.case.removesuffix(tail)) for match in matches]


def _no_case(predicted: Found, truth: Found | None, space: LabelSpace | None) -> NoCaseMatched:
    has = [f"{found.given} has {_content(found)}" for found in (predicted, truth) if found is not None]
    targets = frozenset() if truth is None else frozenset(truth.cases)
    proposal = ""
    if not predicted.cases and predicted.pattern is None and predicted.given.is_dir():
        layout = propose_layout(predicted.given, targets, space)
        proposal = f" '{layout}'" if layout else ""
    elif truth is not None and not truth.cases and truth.pattern is None and truth.given.is_dir():
        layout = propose_layout(truth.given, frozenset(predicted.cases), space)
        proposal = f", --label-pattern '{layout}'" if layout else ""
    elif truth is not None and predicted.cases and truth.cases:
        ours = [split_suffix(matches[0].path.name) for matches in predicted.cases.values()]
        theirs = [split_suffix(matches[0].path.name) for matches in truth.cases.values()]
        if predicted.pattern is None and (affix := propose_affix(ours, frozenset(truth.cases))):
            proposal = f" '{affix}'"
        elif truth.pattern is None and (affix := propose_affix(theirs, frozenset(predicted.cases))):
            proposal = f", --label-pattern '{affix}'"
    return NoCaseMatched(", ".join(has), proposal)


def _content(found: Found) -> str:
    """What a message shows of an argument: ids, else names of files and folders, else "nothing"."""
    names = sorted(found.cases, key=byte_order)
    if not names and not found.single:
        listings = [list_folder(root) for root in expand_folders(found.given)]
        names = [name for listing in listings for name in listing.files]
        names += [f"{name}/" for listing in listings for name in listing.folders]
    return examples(names) or "nothing"
