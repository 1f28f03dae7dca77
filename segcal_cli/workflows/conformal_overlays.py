"""Conformal sets drawn on scans: chosen cases are read once more, and only the slices that are shown are kept."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segcal_cli.confidence.evaluation import TargetOutcome
from segcal_cli.confidence.learning import default_candidates
from segcal_cli.confidence.maps import SIDES, score_map
from segcal_cli.confidence.scores import Score
from segcal_cli.confidence.sets import CaseSets, case_sets
from segcal_cli.confidence.spec import BadOption
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.confidence.verdict import Verdict
from segcal_cli.confidence.views import TargetView, views
from segcal_cli.core.case import Case
from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer, Silent
from segcal_cli.execution.engine import results
from segcal_cli.execution.work import Work
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.io.companions import scan_on
from segcal_cli.io.folders import ImageFolder
from segcal_cli.reporting.overlays import Slice, Strip, overlay, score_maps
from segcal_cli.reporting.pictures import Picture
from segcal_cli.reporting.style import Words
from segcal_cli.workflows.calibrators import load_calibrator
from segcal_cli.workflows.conformal_pictures import ON_SCANS, READING
from segcal_cli.workflows.conformal_sources import loaded_sets, open_set_inputs, place_of, set_reader
from segcal_cli.workflows.conformal_verdicts import judged_levels
from segcal_cli.workflows.kinds import IN_SAMPLE
from segcal_cli.workflows.requests import ReliabilityOptions, StudyRequest
from segcal_cli.workflows.running import cluster_of, jobs_of
from segcal_cli.workflows.study import Study

PLANES = ("axial", "coronal", "sagittal")
"""Names of the planes across z, y and x of a scan that is not oblique."""

SHEET_CASES = 12
"""Cases of the sheet that shows them all."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is drawn of one case: by target, strips at every level, and score maps with thresholds. wrong: by target."""

    case: str
    strips: tuple[tuple[Strip, ...], ...]
    maps: tuple[tuple[tuple[Slice, ...], tuple[tuple[float, ...], ...]], ...]


@dataclass(frozen=True, slots=True)
class SliceMaker:
    """Cuts the slices of one case: the ``compute`` half of the work."""

    calibration: Calibration
    strata: Mapping[str, tuple[int, ...]]
    alphas: tuple[float, ...]
    sources: Mapping[str, CaseSource]
    images: Path | None
    with_maps: bool

    def __call__(self, case: Case) -> Shown:
        spec = self.calibration.spec
        made = views(case, [entry.target for entry in spec.targets])
        image = None if self.images is None else self._scan(case.id)
        strips, maps = [], []
        for target, view in enumerate(made):
            found = []
            for alpha in self.alphas:
                row = self.calibration.threshold(target, self.strata[case.id][target], alpha)
                found.append(case_sets(view, spec, target, row.inner.value, row.outer.value))
            background = image if image is not None else background_of(view, labels_only=spec.labels_only)
            planes = planes_of(view, found)
            strips.append(
                tuple(
                    Strip(
                        f"alpha {alpha:g}",
                        tuple(_slice(view, sets, background, axis, at) for axis, at in planes),
                        _blank(view, sets),
                    )
                    for alpha, sets in zip(self.alphas, found, strict=True)
                )
            )
            if self.with_maps:
                maps.append(self._maps(target, view, found[0], planes[0], self.strata[case.id][target]))
        return Shown(case.id, tuple(strips), tuple(maps))

    def _scan(self, case: str) -> np.ndarray:
        """float32 "z y x": the scan on the case's grid. Raises what finding, reading and aligning raise."""
        assert self.images is not None, "there are scans"
        return scan_on(place_of(self.sources[case]), ImageFolder(self.images).find(case))

    def _maps(
        self, target: int, view: TargetView, sets: CaseSets, plane: tuple[int, int], stratum: int
    ) -> tuple[tuple[Slice, ...], tuple[tuple[float, ...], ...]]:
        """Every candidate score of the case in one slice; those of the artifact with their thresholds."""
        spec = self.calibration.spec
        entry = spec.targets[target]
        lists = default_candidates(min(view.spacing), labels_only=spec.labels_only)
        rows = [self.calibration.threshold(target, stratum, alpha) for alpha in self.alphas]
        slices, thresholds = [], []
        for side in SIDES:
            for score in dict.fromkeys((entry.score(side), *lists.of(side))):
                values = score_map(view, score, side, spec.rules.maps).values
                cut = _slice(view, sets, values, *plane)
                slices.append(replace(cut, name=f"{side}: {_named(score)}"))
                own = [row.inner.value if side == "inner" else -row.outer.value for row in rows]
                thresholds.append(tuple(v for v in own if math.isfinite(v)) if score == entry.score(side) else ())
        return tuple(slices), tuple(thresholds)


def refuse_numbers(picturing: ReliabilityOptions) -> None:
    """Raise BadOption for levels and numbers that cannot be."""
    overlay_alphas(picturing.alphas)
    if picturing.max_cases < 0:
        raise BadOption(f"--max-cases {picturing.max_cases} is not allowed; it must be 0 or more")


def overlay_alphas(text: str) -> tuple[float, ...]:
    """The levels of ``--alphas``. Raises BadOption."""
    try:
        alphas = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadOption(f"--alphas {text}: numbers are expected, as in 0.05,0.1,0.2") from None
    if not all(0.0 < alpha < 1.0 for alpha in alphas):
        raise BadOption(f"--alphas {text}: levels must lie strictly between 0 and 1")
    return alphas


def on_scans(
    study: Study,
    plots: Sequence[str],
    picturing: ReliabilityOptions,
    request: StudyRequest,
    observer: Observer,
) -> list[Picture]:
    """Overlays, and score maps where they are asked for, of every conformal-sets artifact of the study; none where the
    scans are not at hand.
    """
    predictions, labels, reading, truth = request.predictions, request.labels, request.reading, request.truth
    if predictions is None or labels is None:
        return []
    wanted = [plot for plot in ON_SCANS if plot in plots and (plot == "overlay" or picturing.show_scores)]
    made: list[Picture] = []
    for one in study.verdicts if wanted and picturing.max_cases else ():
        judged = one.judged
        if judged.artifact.header.kind != "conformal-sets":
            continue
        loaded = loaded_sets(judged.path, judged.artifact)
        alpha, alphas = judged_levels(loaded, request.judging)
        verdict = Verdict(loaded.calibration, one.result, alpha, alphas, judged.artifact.header.seed)
        chosen = chosen_cases(verdict, picturing.max_cases)
        before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
        inputs = open_set_inputs(predictions, labels, reading, truth, Silent(), labels_only=loaded.spec.labels_only)
        sources = {source.id: source for source in inputs.sources if source.id in chosen}
        maker = SliceMaker(
            loaded.calibration,
            {id: tuple(t.stratum for t in one.result[id].targets) for id in chosen},
            _drawn_alphas(picturing, alpha),
            sources,
            picturing.images,
            "score-maps" in wanted,
        )
        shown: dict[str, Shown] = {}
        work = Work(set_reader(inputs, before), maker)
        with contextlib.closing(
            results(work, [sources[id] for id in chosen], jobs_of(request.running), cluster_of(request.running))
        ) as stream:
            for number, result in enumerate(stream, start=1):
                observer.progress(number, len(chosen), "cutting slices")
                if result.error is not None:
                    raise result.error
                shown[result.id] = result.value
        end = IN_SAMPLE if one.in_sample else ""
        made += _pictures(judged.name, verdict, [shown[id] for id in chosen], wanted, picturing, end)
    return made


def _drawn_alphas(picturing: ReliabilityOptions, judged: float) -> tuple[float, ...]:
    """The levels of ``--alphas``, and the one that is judged, which the sheet of all cases shows."""
    return tuple(dict.fromkeys((*overlay_alphas(picturing.alphas), judged)))


def chosen_cases(verdict: Verdict, most: int) -> list[str]:
    """Cases with a wrong set first, then evenly along the order of |O|/|Y| (without truth: of |O|)."""
    wrong: list[str] = []
    right: list[str] = []
    rows: dict[str, list[Mapping[str, object]]] = {}
    for row in verdict.case_rows():
        rows.setdefault(str(row["case"]), []).append(row)
    for case, mine in rows.items():
        failed = any(not (row["covered_inner"] and row["covered_outer"]) for row in mine)
        (wrong if failed else right).append(case)

    def size(case: str) -> tuple[float, bytes]:
        ratios = [row["outer_ratio"] for row in rows[case] if row["outer_ratio"] is not None]
        return (max(ratios) if ratios else math.inf), case.encode()  # type: ignore[type-var, return-value]

    right.sort(key=size)
    room = max(0, most - len(wrong))
    if room and right:
        at = np.unique(np.rint(np.linspace(0, len(right) - 1, min(room, len(right)))).astype(int))
        right = [right[index] for index in at]
    return (wrong + (right if room else []))[:most]


def background_of(view: TargetView, *, labels_only: bool) -> np.ndarray:
    """The log-odds, or the mask where there is nothing else."""
    return view.mask.astype(np.float32) if labels_only else view.log_odds.astype(np.float32)


def planes_of(view: TargetView, found: Sequence[CaseSets]) -> list[tuple[int, int]]:
    """(axis, index) of the slices shown: across each long axis where most truth is, without truth most of the first
    outer set that is neither nothing nor everything; through the middle where there is none."""
    seen = [view.all_truth, *(sets.outer for sets in found if not sets.outer.all())]
    mask = next((mask for mask in seen if mask.any()), None)
    long = [axis for axis in range(3) if view.shape[axis] > 1]
    if len(long) < 3:
        short = next(axis for axis in range(3) if axis not in long or axis == 2)
        return [(short, 0)]
    if mask is None:
        return [(axis, size // 2) for axis, size in enumerate(view.shape)]
    places = [mask.sum(axis=tuple(other for other in range(3) if other != axis)).argmax() for axis in range(3)]
    return [(axis, int(at)) for axis, at in enumerate(places)]


def directions(affine: np.ndarray | None) -> tuple[str, str, str]:
    """Letters that z, y and x point to in RAS+ space; "" without a place in space."""
    if affine is None:
        return "", "", ""
    letters = []
    for column in (2, 1, 0):
        direction = affine[:3, column]
        axis = int(np.abs(direction).argmax())
        letters.append(("RAS" if direction[axis] > 0 else "LPI")[axis])
    z, y, x = letters
    return z, y, x


def _slice(view: TargetView, sets: CaseSets, background: np.ndarray, axis: int, at: int) -> Slice:
    def cut(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.take(array, at, axis=axis))

    rows, columns = (other for other in range(3) if other != axis)
    towards = directions(view.case.volume.grid.affine)
    flat = sum(size > 1 for size in view.shape) < 3
    return Slice(
        "" if flat else f"{PLANES[axis]} {at}",
        cut(background).astype(np.float32),
        {"truth": cut(view.all_truth), "inner": cut(sets.inner), "outer": cut(sets.outer)},
        (view.spacing[rows], view.spacing[columns]),
        (towards[rows], towards[columns]),
    )


def _blank(view: TargetView, sets: CaseSets) -> str:
    """What no outline shows: a truth or a set that is nothing, an outer set that is everything."""
    blank = {
        "no target": not view.all_truth.any(),
        "inner empty": not sets.inner.any(),
        "outer empty": not sets.outer.any(),
        "outer everything": sets.outer.all(),
    }
    return ", ".join(words for words, holds in blank.items() if holds)


def _named(score: Score) -> str:
    return str(score)


def _pictures(
    name: str, verdict: Verdict, shown: Sequence[Shown], wanted: Sequence[str], picturing: ReliabilityOptions, end: str
) -> Iterator[Picture]:
    """end: of every caption of sets."""
    spec = verdict.calibration.spec
    places = {entry.target.name: target for target, entry in enumerate(spec.targets)}
    marks = {
        (str(row["case"]), str(row["target"])): _mark(row, verdict.outcomes[row["case"]].targets[places[row["target"]]])
        for row in verdict.case_rows()
    }
    alphas = overlay_alphas(picturing.alphas)
    place = _drawn_alphas(picturing, verdict.alpha).index(verdict.alpha)
    under = "the scan" if picturing.images is not None else "the log-odds"
    for target, entry in enumerate(spec.targets):
        label = entry.target.name
        scores = f"{entry.inner} inside, {entry.outer} outside; on {under}. "
        if "overlay" in wanted:
            words = Words(
                f"Inner and outer sets: {label}, {name}",
                f"{scores}Alpha {verdict.alpha:g}. Wrong ones first, then from tight to wide.{end}",
            )
            strips = [
                replace(one.strips[target][place], label="\n".join((one.case, *marks[one.case, label])))
                for one in shown[:SHEET_CASES]
            ]
            yield Picture("overlay", label, name, None, words.title, words.caption, overlay(strips, words))
            for one in shown:
                said = ", ".join(marks[one.case, label])
                mark = f" ({said} at alpha {verdict.alpha:g})" if said else ""
                words = Words(f"{one.case}: {label}, {name}{mark}", f"{scores}{READING['overlay'].how}{end}")
                drawing = overlay(one.strips[target][: len(alphas)], words)
                yield Picture("overlay", label, name, one.case, words.title, words.caption, drawing)
        if "score-maps" in wanted and shown:
            first = shown[0]
            slices, thresholds = first.maps[target]
            levels = ", ".join(f"{alpha:g}" for alpha in alphas)
            how = (
                f"{READING['score-maps'].how} Thresholds of the scores in use at alpha {levels}, where they are finite."
            )
            words = Words(f"Score maps of {first.case}: {label}, {name}", how)
            drawing = score_maps(slices, thresholds, words)
            yield Picture("score-maps", label, name, first.case, words.title, words.caption, drawing)


def _mark(row: Mapping[str, object], found: TargetOutcome) -> list[str]:
    """Which sets are wrong, and by how much: a few voxels may lie in none of the slices."""
    said = []
    if not row["covered_inner"]:
        said.append(f"inner wrong by {count_text(found.inner_false, 'voxel', 'voxels')}")
    if not row["covered_outer"]:
        said.append(f"outer wrong by {count_text(found.outer_missed, 'voxel', 'voxels')}")
    return said
