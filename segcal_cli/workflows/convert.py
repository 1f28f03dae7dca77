"""``convert``: any readable prediction as NIfTI in the geometry of its scan."""

from __future__ import annotations

from pathlib import Path

from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.io.geometry import Space
from segcal_cli.io.naming import Kind, entity_values, refuse_same_names
from segcal_cli.io.outputs import NoGrid, refuse_inside, soft_files, soft_names
from segcal_cli.io.run_files import RunFiles
from segcal_cli.workflows.calibrators import CalibratorTransform, load_calibrator, refuse_misfit
from segcal_cli.workflows.case_keeping import Made
from segcal_cli.workflows.folder_runs import FolderRun, running_on
from segcal_cli.workflows.folder_shards import EVERY_CASE, concluded, share_of
from segcal_cli.workflows.inputs import open_inputs, reading_spec
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.requests import FolderOptions, PredictionOptions, RunOptions, ShardOptions
from segcal_cli.workflows.run_settings import settings_for
from segcal_cli.workflows.running import refuse_contradictions, require_workers
from segcal_cli.workflows.sharding import parse_shard

KINDS: dict[Values, Kind] = {"probabilities": "probseg", "logits": "logits"}


@dataclass(frozen=True, slots=True)
class CaseConverter:
    """One case as it was read: its files, and what it holds."""

    split_classes: bool
    places: dict[str, Space]

    def __call__(self, case: Case) -> Made:
        files = soft_files(
            case.id,
            KINDS[case.volume.values],
            case.volume.array,
            case.space,
            self.places[case.id],
            desc=None,
            split_classes=self.split_classes,
            marks={},
        )
        result = {
            "values": case.volume.values,
            "proof": case.facts.proof or None,
            "saturation": {
                name: dict(zip(("p_zero", "p_one", "p_below_1e-6", "p_above_1-1e-6"), shares, strict=True))
                for name, shares in case.facts.saturation.items()
            },
        }
        return Made(files, result)


def run(
    predictions: Path,
    output: Path,
    split_classes: bool,
    reading: PredictionOptions,
    running: RunOptions,
    writing: FolderOptions,
    observer: Observer,
    sharding: ShardOptions = EVERY_CASE,
) -> Outcome:
    """Convert every case that can be read. float32 passes bit for bit."""
    shard = parse_shard(sharding.shard)
    require_workers(running)
    refuse_contradictions(running, writing)
    refuse_inside(output, [predictions])
    calibrator = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_inputs(predictions, None, reading, None, observer, min_age=writing.min_age)
    values = inputs.values
    if calibrator is not None:
        refuse_misfit(calibrator, predictions, inputs.space, values, reading_spec(inputs.reading, None, None))
        values = calibrator.values_after
    unplaced = [source for source in inputs.sources if not source.prediction.placed]
    if unplaced:
        raise NoGrid(unplaced[0].prediction.parts[0].first.path)
    entity_values(inputs.space.names)
    refuse_same_names([source.id for source in inputs.sources], KINDS[values])
    names = {
        source.id: soft_names(
            source.id, KINDS[values], inputs.space, desc=None, placed=True, split_classes=split_classes
        )
        for source in inputs.sources
    }
    places = {source.id: source.prediction.place for source in inputs.sources}
    transform = None if calibrator is None else CalibratorTransform(calibrator.calibrator)
    settings = settings_for(
        "convert",
        None,
        None if calibrator is None else calibrator.artifact,
        inputs.reading,
        inputs.values,
        {"split_classes": split_classes},
        (running, writing),
        writing.origins,
    )
    own = share_of(inputs, shard)
    with running_on(RunFiles(output, shard=shard), settings, own, writing, running, observer) as run:
        run.refuse_existing([output / name for source in own.sources for name in names[source.id]])
        run.map(inputs.reader(transform=transform), CaseConverter(split_classes, places), "converting")
        outcome = concluded(run, NoTables(), inputs)
    return outcome


@dataclass(frozen=True, slots=True)
class NoTables:
    """No file stands for all cases."""

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    def conclude(self, run: FolderRun) -> Outcome:
        return Outcome(run.result, run.counts, failures=run.failures, exit_code=run.exit_code)
