"""``ntr-interval fit``: labelled cases in, one table of their numbers out, from which any level can be had later."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.core.errors import UsageError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.execution.engine import failure_records
from segcal_cli.execution.work import Result
from segcal_cli.io.artifacts import write_artifact
from segcal_cli.io.case_files import same_predictions
from segcal_cli.io.outputs import refuse_existing, refuse_inside, require_file_place
from segcal_cli.io.problems import raise_all
from segcal_cli.ratio.fit import NothingLabelled, NothingPredicted, RatioSums
from segcal_cli.ratio.guarantees import Circumstances, minimum_text, none_scored_text, percent, rounded_down
from segcal_cli.ratio.kernel_error import BANDWIDTH, DRAWN, DRAWS
from segcal_cli.ratio.presets import preset_of
from segcal_cli.ratio.regions import Ratio, possible_regions, ratio_of
from segcal_cli.ratio.settings import BadSetting, Settings
from segcal_cli.ratio.sums import Wanted
from segcal_cli.ratio.table import RatioTable, to_arrays
from segcal_cli.ratio.thresholds import Calibration
from segcal_cli.workflows.calibrate_fit import Judge
from segcal_cli.workflows.calibrators import CalibratorTransform, LoadedCalibrator, load_calibrator, refuse_misfit
from segcal_cli.workflows.inputs import open_inputs, reading_spec
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.ratio_artifacts import KIND, promised, settings_of, volume_unit
from segcal_cli.workflows.regions_of_interest import has_region
from segcal_cli.workflows.requests import (
    LabelOptions,
    OutputOptions,
    PredictionOptions,
    RatioFitOptions,
    RatioOptions,
    RatioRegionOptions,
    RoundOptions,
    RunOptions,
)
from segcal_cli.workflows.running import plan_of
from segcal_cli.workflows.sharding import WHOLE, Job, carried_out, parse_shard
from segcal_cli.workflows.tracing import Traced, WithFacts, refuse_seen, report_facts, without_folders


class NoRatio(UsageError):
    """Nobody said what is divided by what."""

    template = "give --numerator and --denominator, or --preset; possible regions are {0}"


@dataclass(frozen=True, slots=True)
class RatioConclusion:
    """What remains of a fit once all cases have been read. unit: of volumes. roi: some cases have a region. kernel: the
    kernel estimate of the calibration error was asked for. read_as: see ``reading_spec``. who: id and group of every
    case. before: the calibrator that predictions were read through.
    """

    ratio: Ratio
    settings: Settings
    unit: str
    space: LabelSpace
    values: Values
    fitting: RatioFitOptions
    preset: str | None
    kernel: bool
    read_as: Mapping[str, object]
    roi: bool
    who: tuple[tuple[str, str], ...]
    before: LoadedCalibrator | None

    def conclude(self, traced: Traced, failures: Sequence[Result], output: Path, observer: Observer) -> Outcome:
        """Write the artifact. Raises SeenCases, NothingLabelled, WriteError."""
        ratio, unit, before = self.ratio, self.unit, self.before
        report_facts(traced.facts, observer)
        digests = {case: fact.digest for case, fact in traced.facts.items()}
        overlaps = before is not None and refuse_seen(
            before.artifact, before.path, self.who, digests, allow=self.fitting.allow_overlap
        )
        table: RatioTable = traced.result
        calibration = Calibration.of(table, self.settings, unit)
        if not len(calibration.scored):
            if not (table["B_label"] > 0).any():
                raise NothingLabelled(" + ".join(ratio.denominator.names))
            raise NothingPredicted(none_scored_text(calibration, ratio, unit))
        unannotated = _unannotated(table)
        summary = _summary(calibration, ratio, unit, unannotated)
        circumstances = Circumstances(unannotated=unannotated, overlapped=overlaps)
        promise = promised(calibration, ratio, unit, circumstances, len(failures), len(table), roi=self.roi)
        drawn = {"bandwidth": BANDWIDTH, "voxels": DRAWN, "draws": DRAWS, "seed": self.fitting.seed}
        header = Header(
            kind=KIND,
            method=self.settings.method,
            # Names of unions were for the options; values stand in the spec.
            space=replace(self.space, regions=()),
            values=self.values,
            spec={
                **ratio.to_json(),
                "preset": self.preset,
                "bins": self.fitting.bins,
                "volume_unit": unit,
                "kde": drawn if self.kernel else None,
                "settings": self.settings.to_json(),
                **self.read_as,
                "roi": self.roi,
                "overlap_allowed": overlaps,
            },
            case_ids=table.ids,
            group_ids=table.groups,
            case_digests=digests,
            fit_input_digest=_input_digest(table, digests),
            guarantee=promise,
            seed=self.fitting.seed,
            dropped=tuple({"case": failure.id, "error": without_folders(failure.error)} for failure in failures),
            results=summary,
        )
        digest = write_artifact(output, Artifact(header, to_arrays(table)))
        _warn(calibration, ratio, summary, observer)
        done = len(table)
        return Outcome(
            result={
                "artifact": {"file": output.name, "sha256": digest},
                **ratio.to_json(),
                **summary,
                "guarantee": promise,
            },
            counts=Counts(done + len(failures), done, len(failures)),
            lines=(_scored_line(calibration, summary), promise),
            failures=tuple(failure_records(failures)),
        )


def run(
    predictions: Path,
    labels: Path,
    output: Path,
    regions: RatioRegionOptions,
    statistics: RatioOptions,
    fitting: RatioFitOptions,
    reading: PredictionOptions,
    truth: LabelOptions,
    running: RunOptions,
    writing: OutputOptions,
    observer: Observer,
    sharding: RoundOptions = WHOLE,
) -> Outcome:
    """Fit and write the artifact. Raises what reading and fitting raise; then nothing is written."""
    parse_shard(sharding.shard)
    plan = plan_of(running)
    refuse_inside(output, (predictions, labels))
    refuse_existing([output], overwrite=writing.overwrite)
    require_file_place(output)
    if fitting.bins < 1:
        raise BadSetting(f"--bins {fitting.bins} is not allowed; it must be 1 or more")
    if fitting.seed < 0:
        raise BadSetting(f"--seed {fitting.seed} is not allowed; it must be 0 or more")
    settings = settings_of(statistics, Settings())
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_inputs(predictions, labels, reading, truth, observer, volumes=True, regions=True)
    ratio = chosen_ratio(regions, inputs.space, observer)
    settings.check(contained=ratio.contained)
    raise_all(same_predictions(inputs.files))
    reading = inputs.reading
    if plan.on_failure == "stop":
        inputs.require_all()
    who = tuple((source.id, source.group) for source in inputs.sources)
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, inputs.values, reading_spec(reading, None, None))
        refuse_seen(before.artifact, before.path, who, {}, allow=fitting.allow_overlap)
    kernel = settings.calibration_error == "kde"
    wanted = Wanted(labels=True, blocks=True, bins=fitting.bins, kernel_seed=fitting.seed if kernel else None)
    job = Job(
        "ntr-interval fit",
        WithFacts(RatioSums(ratio, wanted), judge=Judge(inputs.v1_files)),
        inputs.reader(with_digest=True, transform=None if before is None else CalibratorTransform(before.calibrator)),
        inputs.sources,
        inputs.failures,
        inputs,
        RatioConclusion(
            ratio=ratio,
            settings=settings,
            unit=volume_unit(inputs.sources),
            space=inputs.space,
            values=inputs.values,
            fitting=fitting,
            preset=regions.preset,
            kernel=kernel,
            read_as=reading_spec(reading, truth, None if before is None else before.artifact),
            roi=has_region(inputs.sources),
            who=who,
            before=before,
        ),
        "fitting",
    )
    return carried_out(job, plan, sharding, output, observer)


def chosen_ratio(regions: RatioRegionOptions, space: LabelSpace, observer: Observer) -> Ratio:
    """The ratio that the options name; what it resolves to is said. Raises NoRatio and what regions raise."""
    numerator, denominator = regions.numerator, regions.denominator
    if regions.preset is not None:
        if numerator is not None or denominator is not None:
            raise BadSetting("--preset stands for --numerator and --denominator; give one or the other")
        preset = preset_of(regions.preset, space)
        observer.note(f"--preset {regions.preset}: {preset.words()}")
        numerator, denominator = (",".join(map(str, part)) for part in (preset.numerator, preset.denominator))
    if numerator is None or denominator is None:
        raise NoRatio(possible_regions(space))
    ratio = ratio_of(numerator, denominator, space)
    for name, region in (("numerator", ratio.numerator), ("denominator", ratio.denominator)):
        values = ",".join(map(str, region.values))
        observer.note(f"{name}: {' + '.join(region.names)} = label {values} = {region.expression}")
    return ratio


def too_few(calibration: Calibration, ratio: Ratio, unit: str) -> str:
    """The warning that n patients are too few, or ""."""
    if not calibration.infinite:
        return ""
    settings = calibration.settings
    if calibration.n == 0:
        return f"{none_scored_text(calibration, ratio, unit)}: every interval is {ratio.bounds}"
    patients = count_text(calibration.n, "patient")
    return (
        f"{patients} cannot give level {settings.level} with {settings.method}: every interval is {ratio.bounds}; "
        f"{calibration.n_needed} would do"
    )


def _summary(calibration: Calibration, ratio: Ratio, unit: str, unannotated: float) -> dict[str, Any]:
    """The numbers of a fit for its header and its document."""
    table, scored, n = calibration.table, calibration.scored, calibration.n
    error = scored.ratio - scored.ratio_label
    labelled = table["B_label"] > 0
    single = n / (n + 1)
    return {
        "volume_unit": unit,
        "n_cases": len(table),
        "n_patients": n,
        "n_ratio_scores": len(scored),
        "n_without_denominator": int((~labelled).sum()),
        "n_small_denominator": int(labelled.sum()) - len(scored),
        "highest_level": {
            "nested": single,
            "joint": single,
            "cp": single,
            "care_guaranteed": max(0.0, 1.0 - 2.0 / (n + 1)),
        },
        "r_bias": {"abs_mean": float(np.abs(error).mean()), "signed_mean": float(error.mean())},
        "unannotated": unannotated,
    }


def _unannotated(table: RatioTable) -> float:
    ignored = float(table["unannotated"].sum())
    return ignored / (ignored + float(table["voxels"].sum()))


def _warn(calibration: Calibration, ratio: Ratio, summary: Mapping[str, Any], observer: Observer) -> None:
    below = " + ".join(ratio.denominator.names)
    if not ratio.contained:
        observer.warn(
            f"{' + '.join(ratio.numerator.names)} is not part of {below}: the ratio has no upper limit, and an "
            "interval may have no upper end"
        )
    without = summary["n_without_denominator"]
    if without:
        which = "label holds" if without == 1 else "labels hold"
        observer.warn(f"{without} {which} no {below}: counted for the volumes, not for the ratio")
    if summary["n_small_denominator"]:
        least = minimum_text(calibration.settings, summary["volume_unit"])
        small = count_text(summary["n_small_denominator"], "case")
        observer.warn(
            f"{small} predicted to hold less than {least} of {below}: counted for the volumes, not for the ratio"
        )
    few = too_few(calibration, ratio, summary["volume_unit"])
    if few:
        observer.warn(few)


def _scored_line(calibration: Calibration, summary: Mapping[str, Any]) -> str:
    bias = summary["r_bias"]
    ratios, patients = count_text(summary["n_ratio_scores"], "ratio"), count_text(summary["n_patients"], "patient")
    return (
        f"{ratios} of {patients}; the predicted ratio misses the "
        f"labelled one by {bias['abs_mean']:.4f} on average ({bias['signed_mean']:+.4f} signed). Highest level: "
        f"{percent(rounded_down(summary['highest_level']['nested']))} with nested, joint and cp, "
        f"{percent(rounded_down(summary['highest_level']['care_guaranteed']))} with care-guaranteed"
    )


def _input_digest(table: RatioTable, digests: Mapping[str, str]) -> str:
    """sha256 over ids, patients and digests of all cases."""
    lines = [f"{case}\t{group}\t{digests[case]}\n" for case, group in zip(table.ids, table.groups, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
