"""Idle options: what was given and could not change a thing, and is refused rather than passed over.

A person who gives an option expects it to do something. Whether it can is often known only from the other options, or
once headers have been read: how many predictions a case has, whether files say where they lie. Refusing here takes no
voxel to be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from segcal_cli.core.errors import UsageError
from segcal_cli.io import files
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.metrics.columns import OVERLAP_COLUMNS
from segcal_cli.metrics.measures import Settings
from segcal_cli.workflows.conventions import Intervals
from segcal_cli.workflows.requests import (
    EvaluateOptions,
    IntervalOptions,
    MeasureOptions,
    PredictionOptions,
    ReliabilityOptions,
    SourceOptions,
)

BINNED = frozenset({"ece", "ace", "mce", "mce_bin", "n_bins", "top_ece", "top_ace", "top_mce"})
"""Measures that the bins of a table decide."""

BIN_OPTIONS = ("bins", "closed", "empty_bins")
"""Fields of MeasureOptions that change nothing else."""

DRAWN_WITH = {
    "show_cases": ("case-diagram",),
    "min_voxels": ("corp", "dataset-histogram", "case-violin", "mean-curve"),
}
"""Field of ReliabilityOptions -> the plots that it changes."""


class IdleOption(UsageError):
    """An option that could not change anything."""

    template = "{0} has no meaning {1}"


def refuse_overlap_alone(allowed: bool, artifacts: bool, without: str) -> None:
    """Raise IdleOption for --allow-overlap where nothing could have seen the cases. artifacts: whether there are some;
    without: what is lacking."""
    if allowed and not artifacts:
        raise IdleOption("--allow-overlap", f"without {without}")


def refuse_idle_reading(reading: PredictionOptions, sources: Sequence[CaseSource]) -> None:
    """Raise IdleOption for an option of reading that no prediction asks for. sources: all cases of the run."""
    parts = [(source, part) for source in sources for part in source.prediction.parts]
    idle = {
        "--reduce": (
            reading.reduce is not None and len(parts) == len(sources),
            "where every case has one prediction",
        ),
        "--reader": (
            reading.reader is not None and not any(part.saved_by_nnunet for _, part in parts),
            "where no prediction is an array of nnU-Net",
        ),
        "--no-prove": (
            not reading.prove and all(part.proof is None for _, part in parts),
            "where no segmentation lies beside a prediction",
        ),
        "--geometry": (
            reading.geometry is not None
            and all(
                part.proof is not None
                or files.place(part.first, source.prediction.shape[1:], part.axis).grid.affine is not None
                for source, part in parts
            ),
            "where every prediction says itself where it lies",
        ),
    }
    _refuse(idle)


def refuse_idle_measuring(
    measuring: MeasureOptions, drawing: IntervalOptions, settings: Settings, intervals: Intervals
) -> None:
    """Raise IdleOption for options of measures that are not taken, and of intervals that are not drawn."""
    wanted = settings.wanted
    unsampled = "without kde_ece among the measures (--metrics +kde_ece)"
    idle = {
        "--kde-sample": (measuring.kde_sample is not None and "kde_ece" not in wanted, unsampled),
        "--kde-bandwidth": (measuring.kde_bandwidth is not None and "kde_ece" not in wanted, unsampled),
        "--empty-dice": (
            measuring.empty_dice is not None and not set(OVERLAP_COLUMNS) & set(wanted),
            f"without {' or '.join(OVERLAP_COLUMNS)} among the measures",
        ),
        "--level": (drawing.level is not None and not intervals.resamples, "without resamples (--bootstrap)"),
        "--seed": (
            drawing.seed is not None and not intervals.resamples and "kde_ece" not in wanted,
            "without resamples (--bootstrap)",
        ),
    }
    _refuse(idle)


def refuse_idle_bins(measuring: MeasureOptions, settings: Settings, outputs: EvaluateOptions) -> None:
    """Raise IdleOption for the bins of a table that shows none of their measures, where no other file tells them."""
    if BINNED & set(settings.wanted) or any((outputs.bin_table, outputs.histograms, outputs.html)):
        return
    words = "without a measure of bins, such as ece"
    _refuse({f"--{name.replace('_', '-')}": (getattr(measuring, name) is not None, words) for name in BIN_OPTIONS})


def refuse_idle_sources(sourcing: SourceOptions, outputs: EvaluateOptions | None = None) -> None:
    """Raise IdleOption for the name of a source that is not measured, and for a comparison of one."""
    if sourcing.saved is not None:
        return
    count = int(sourcing.raw) + len(sourcing.artifact) + len(sourcing.also)
    _refuse(
        {
            "--name": (sourcing.name is not None and not sourcing.raw, "with --no-raw: that source is left out"),
            "--comparison": (
                outputs is not None and outputs.comparison is not None and count == 1,
                "with one source; give --artifact or --also",
            ),
        }
    )


def refuse_idle_pictures(picturing: ReliabilityOptions, plots: Iterable[str]) -> None:
    """Raise IdleOption for what only plots that are not drawn would show."""
    default, drawn = ReliabilityOptions(), set(plots)
    _refuse(
        {
            f"--{name.replace('_', '-')}": (
                getattr(picturing, name) != getattr(default, name) and drawn.isdisjoint(of),
                f"without --plots {' or '.join(of)}",
            )
            for name, of in DRAWN_WITH.items()
        }
    )


def _refuse(idle: dict[str, tuple[bool, str]]) -> None:
    """Option -> whether it is given for nothing, and why."""
    for option, (is_idle, why) in idle.items():
        if is_idle:
            raise IdleOption(option, why)
