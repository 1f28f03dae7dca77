"""The files that one case is made from: everything whose bytes can change its outputs.

Predictions, the segmentations that prove them, the region of interest, the image that places them, the class table, and
nnU-Net's files of the model. The record names them below the folder that was given, so that it says nothing of the
machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segcal_cli.io.case_files import CaseFiles
from segcal_cli.io.fingerprints import InputFile, younger_than
from segcal_cli.io.folders import ImageFolder, expand_folders
from segcal_cli.io.nnunet import find_model_files
from segcal_cli.workflows.requests import PredictionOptions


def given_folders(predictions: Path, reading: PredictionOptions) -> tuple[Path, ...]:
    """Folders that names of inputs are told from."""
    folders = [*expand_folders(predictions), *(Path(member) for member in reading.member)]
    if reading.cases is not None:
        folders.append(reading.cases.parent)
    return tuple(folder if folder.is_dir() else folder.parent for folder in folders)


def input_files(case: CaseFiles, reading: PredictionOptions, folders: Sequence[Path]) -> tuple[InputFile, ...]:
    """The files of a case, in an order that depends on their roles alone. Raises NoImage."""
    found = [("prediction", file.path) for file in case.predictions]
    found += [("segmentation", file.proof) for file in case.predictions if file.proof is not None]
    if case.roi is not None:
        found.append(("roi", case.roi))
    if reading.geometry is not None:
        found.append(("geometry", ImageFolder(reading.geometry).find(case.id)))
    model = find_model_files(case.predictions[0].path.parent)
    # A class table of the model is not read where another one is given.
    if reading.classes is not None:
        found.append(("classes", reading.classes))
    elif model.dataset is not None:
        found.append(("dataset.json", model.dataset))
    if model.plans is not None:
        found.append(("plans.json", model.plans))
    return tuple(InputFile(role, path, _below(path, folders)) for role, path in found)


def own_files(case: CaseFiles) -> tuple[Path, ...]:
    """The files that arrive with a case: what it shares with others is not among them."""
    paths = [path for file in case.predictions for path in (file.path, file.proof) if path is not None]
    return (*paths, *(() if case.roi is None else (case.roi,)))


def still_arriving(case: CaseFiles, seconds: float) -> bool:
    """Whether a file of the case is younger than that."""
    return seconds > 0 and any(younger_than(path, seconds) for path in own_files(case))


def _below(path: Path, folders: Sequence[Path]) -> str:
    for folder in folders:
        if folder in path.parents:
            return path.relative_to(folder).as_posix()
    return path.name
