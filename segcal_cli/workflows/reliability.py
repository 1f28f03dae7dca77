"""``reliability``: pictures of calibration, with the numbers in them, and a report that holds them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from segcal_cli.core.errors import UsageError, count_text
from segcal_cli.core.observer import Observer, Recorder
from segcal_cli.io.atomic import filling, is_temp, write_text
from segcal_cli.io.outputs import File, OutputExists, make_folder, refuse_inside, text_file, write_files
from segcal_cli.metrics.measures import Settings
from segcal_cli.reporting.page import render
from segcal_cli.reporting.pictures import Picture, refuse_same_names
from segcal_cli.reporting.style import FORMATS, SVG
from segcal_cli.workflows.beside import needs_of
from segcal_cli.workflows.calibrators import load_calibrator
from segcal_cli.workflows.conformal_overlays import on_scans, refuse_numbers
from segcal_cli.workflows.conventions import settings_of
from segcal_cli.workflows.idle_options import refuse_idle_pictures, refuse_idle_sources
from segcal_cli.workflows.inputs import find_cases
from segcal_cli.workflows.judged import (
    ASKED_OF,
    DRAWN_OF,
    PICTURED,
    SETS,
    Judged,
    OptionWithoutArtifact,
    pictures_of,
    refuse_unasked,
)
from segcal_cli.workflows.measure_text import people_tables
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.pictures import BOXED, PLOTS, draw
from segcal_cli.workflows.report import page
from segcal_cli.workflows.report_options import report_options
from segcal_cli.workflows.requests import (
    CompanionOptions,
    CoverageOptions,
    JudgeOptions,
    OutputOptions,
    PredictionOptions,
    ReliabilityOptions,
    StudyRequest,
)
from segcal_cli.workflows.saved_studies import measured_or_loaded
from segcal_cli.workflows.scene import Scene
from segcal_cli.workflows.shown_cases import ShownCases
from segcal_cli.workflows.study import NamedArtifact, Study, named_artifacts, say

REPORT = "report.html"

PICTURE = "picture"
"""What is counted while drawing."""

EVERYTHING, AS_FITTED, NEW = ReliabilityOptions(), CoverageOptions(), OutputOptions()
"""Every picture, at the levels that artifacts were fitted at, in a folder of its own."""

EVERY = "all"

ALWAYS_SHOWN = ("ece", "ace", "mce", "dice", "brier", "nll")
"""Measures of the report's tables that no selection may leave out."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "dataset-diagram": ("ece", "ace", "mce"),
    "mass": ("at_zero", "at_one"),
    "corp": ("brier_mcb", "brier_dsc", "brier_unc"),
    "boxplot": tuple(BOXED),
    "case-scatter": tuple(BOXED),
    "pareto": ("dice", "ece"),
    "case-diagram": ("ece", "ace", "mce"),
}
"""Plot -> measures that stand in it."""

MIN_DPI, MAX_DPI = 50, 1200


class UnknownItem(UsageError):
    """A list of names with one that does not exist."""

    template = "{0} {1}: not known; known are {2}"


class BadNumber(UsageError):
    """A number out of range."""

    template = "{0} {1} is not allowed; {2}"


class MeasureNeeded(UsageError):
    """A selection of measures without one that a picture or the report shows."""

    template = "--metrics leaves out {0}"


def run(
    request: StudyRequest,
    output: Path,
    observer: Observer,
    picturing: ReliabilityOptions = EVERYTHING,
    covering: CoverageOptions = AS_FITTED,
    writing: OutputOptions = NEW,
) -> Outcome:
    """Measure every source, draw the pictures, write the report. Raises what reading and measuring raise. Nothing is
    in the folder before everything is.
    """
    predictions, labels, sourcing = request.predictions, request.labels, request.sourcing
    plots = chosen_items("--plots", picturing.plots, (*PLOTS, *PICTURED))
    formats = chosen_items("--format", picturing.format, FORMATS)
    _check_numbers(picturing)
    refuse_numbers(picturing)
    require_pictured(settings_of(request.measuring, request.drawing.seed), plots)
    refuse_idle_pictures(picturing, plots)
    refuse_idle_sources(sourcing)
    # Saved counts bring their own sources; artifacts beside them are refused later, by what loads them.
    named, promised = named_artifacts(() if sourcing.saved is not None else sourcing.artifact)
    refuse_unasked(covering, ASKED_OF, promised)
    refuse_unasked(picturing, DRAWN_OF, promised)
    along = _companions(picturing, request.reading, named, promised)
    request = replace(request, judging=JudgeOptions(**asdict(covering)), along=along)
    folders = [folder for folder in (predictions, labels, picturing.features, picturing.images) if folder is not None]
    refuse_inside(output, folders)
    if output.exists() and not output.is_dir():
        raise OutputExists(output, " and is no folder")
    if output.exists() and not writing.overwrite and not all(map(is_temp, output.iterdir())):
        raise OutputExists(output, "")
    shown = ShownCases.parse(picturing.show_cases)
    if shown.ids and predictions is not None:
        # Before hours of measuring: a misspelt id.
        shown.require([case.id for case in find_cases(predictions, labels, request.reading, request.truth)[1].cases])

    study = measured_or_loaded(request, observer, with_digests=True)
    evaluation, heard = study.evaluation, Recorder(observer, list(study.provenance.said))
    say(evaluation, study.values, heard)
    scene = Scene(evaluation, shown.choose(evaluation.sources[0].cases), picturing.min_voxels)
    pictures = [*draw(scene, plots, heard), *pictures_of(study.verdicts, plots, request.judging, picturing.cells)]
    pictures += on_scans(study, plots, picturing, request, heard)
    refuse_same_names(pictures)
    make_folder(output)
    options = report_options(study, picturing, request.judging, plots, formats)
    with filling(output, last=REPORT) as folder:
        written = list(_written(pictures, folder, formats, picturing.dpi, heard))
        write_text(folder / REPORT, render(page(study, written, list(options.items()), heard)))
    done, failed = len(evaluation.sources[0].cases), len(study.failures)
    return Outcome(
        result=_result(study, written, options),
        counts=Counts(done + failed, done, failed),
        lines=(f"{count_text(len(pictures), PICTURE)} in {output}; start with {output / REPORT}",),
        tables=tuple(people_tables(evaluation)),
        failures=study.failures,
    )


def _companions(
    picturing: ReliabilityOptions,
    reading: PredictionOptions,
    named: Sequence[NamedArtifact],
    promised: Sequence[Judged],
) -> CompanionOptions:
    """What calibrators look at; scans may be for pictures alone. Raises OptionWithoutArtifact."""
    calibrators = [entry.loaded for entry in named]
    if reading.calibrator is not None:
        calibrators.append(load_calibrator(reading.calibrator, "--calibrator"))
    seen = needs_of(calibrators)["images"]
    drawn = any(one.artifact.header.kind == SETS for one in promised)
    if picturing.images is not None and not (seen or drawn):
        raise OptionWithoutArtifact("images", f"{SETS} or local calibrate")
    return CompanionOptions(picturing.features, picturing.images if seen else None)


def report_alone(study: Study, request: StudyRequest, heard: Recorder) -> str:
    """The HTML of the report with every picture in it, for ``evaluate --html``, which writes no other picture."""
    picturing = ReliabilityOptions()
    cases = study.evaluation.sources[0].cases
    scene = Scene(study.evaluation, ShownCases.parse(picturing.show_cases).choose(cases), picturing.min_voxels)
    plots = (*PLOTS, *PICTURED)
    drawn = [
        (picture, picture.drawing.files([SVG], picturing.dpi, picture.title)[SVG].decode(), ())
        for picture in (
            *draw(scene, tuple(PLOTS), heard),
            *pictures_of(study.verdicts, tuple(PICTURED), request.judging),
        )
    ]
    options = report_options(study, picturing, request.judging, plots, formats=())
    return render(page(study, drawn, list(options.items()), heard))


def chosen_items(flag: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The items of a comma-separated list, in the order of ``known``; ``all`` is all of them. Raises UnknownItem."""
    asked = [item.strip() for item in text.split(",") if item.strip()]
    for item in asked:
        if item not in known and item != EVERY:
            raise UnknownItem(flag, item, ", ".join(known))
    if not asked:
        raise UnknownItem(flag, repr(text), ", ".join(known))
    return tuple(item for item in known if item in asked or EVERY in asked)


def _check_numbers(picturing: ReliabilityOptions) -> None:
    if not MIN_DPI <= picturing.dpi <= MAX_DPI:
        raise BadNumber("--dpi", picturing.dpi, f"it must be from {MIN_DPI} to {MAX_DPI}")
    if picturing.min_voxels < 0:
        raise BadNumber("--min-voxels", picturing.min_voxels, "it must be 0 or more")


def require_pictured(settings: Settings, plots: Iterable[str] = tuple(PLOTS)) -> None:
    """Raise MeasureNeeded if a selection of measures leaves out one that a picture or the report shows."""
    missing: dict[str, list[str]] = {}
    for shown, keys in ({REPORT: ALWAYS_SHOWN} | {plot: NEEDED.get(plot, ()) for plot in plots}).items():
        for key in keys:
            if key not in settings.wanted:
                missing.setdefault(key, []).append(shown)
    if missing:
        raise MeasureNeeded(", ".join(f"{key} (in {', '.join(shown)})" for key, shown in missing.items()))


def _written(
    pictures: Sequence[Picture], folder: Path, formats: Sequence[str], dpi: int, observer: Observer
) -> Iterator[tuple[Picture, str, tuple[str, ...]]]:
    """Each picture, written: with its SVG, which the report holds in any case, and the names of its files."""
    for number, picture in enumerate(pictures):
        observer.progress(number, len(pictures), "drawing", PICTURE)
        drawn = picture.drawing.files(dict.fromkeys([SVG, *formats]), dpi, picture.title)
        files = [text_file(f"{picture.stem}.csv", picture.drawing.csv)]
        files += [_file(f"{picture.stem}.{format}", drawn[format]) for format in formats]
        yield picture, drawn[SVG].decode(), write_files(folder, files)
    observer.progress(len(pictures), len(pictures), "drawing", PICTURE)


def _file(name: str, data: bytes) -> File:
    return File(name, lambda file: _write(file, data))


def _write(file: Any, data: bytes) -> None:
    file.write(data)


def _result(
    study: Study, written: Sequence[tuple[Picture, str, tuple[str, ...]]], options: dict[str, str]
) -> dict[str, Any]:
    evaluation = study.evaluation
    return {
        "options": options,
        "conventions": evaluation.conventions,
        "guarantee": evaluation.guarantee,
        "n_cases": len(evaluation.sources[0].cases),
        "n_groups": evaluation.n_groups,
        "sources": [
            {"name": source.name, "artifact": source.artifact, "in_sample": source.in_sample}
            for source in evaluation.sources
        ],
        "report": REPORT,
        "pictures": [
            {
                "plot": picture.plot,
                "class": picture.name or None,
                "source": picture.source or None,
                "case": picture.case,
                "files": list(files),
                "alt": picture.drawing.alt,
            }
            for picture, _, files in written
        ],
    }
