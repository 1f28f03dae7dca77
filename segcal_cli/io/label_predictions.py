"""Predictions that are label maps: nothing but the model's hard decision is left, so only masks can be taken from them.

Such a case holds one channel of label codes (as in LabelMap) where others hold soft values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segcal_cli.core.case import Case, CaseFacts
from segcal_cli.core.errors import LabelError, SegcalError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Stored, Volume
from segcal_cli.io import files
from segcal_cli.io.case_files import CaseFiles
from segcal_cli.io.case_sources import CaseSource, Opened
from segcal_cli.io.labelmaps import label_map
from segcal_cli.io.nnunet import ModelFiles
from segcal_cli.io.predictions import Part, PredictionSource, ReadingRules
from segcal_cli.io.problems import Problem
from segcal_cli.io.truth import TruthRules, open_truth, read_truth


class IgnoredPrediction(LabelError):
    """A model that predicts the ignore label."""

    template = "{0}: {1} voxels hold the ignore label; a predicted label map says something of every voxel"


def open_label_predictions(
    cases: Sequence[CaseFiles], table: LabelSpace, rules: ReadingRules, truth: TruthRules | None
) -> Opened:
    """Look at every header, and list what is wrong. truth: None where labels are not asked for."""
    sources, problems = [], []
    for case in cases:
        try:
            header = files.probe(case.predictions[0].path)
            shape = files.label_shape(header)
            source = PredictionSource(
                case.id,
                (Part((header,), None, ModelFiles(None, None), None),),
                table,
                files.place(header, shape),
                (1, *shape),
                "probabilities",
                Stored("uint8"),
                rules,
            )
            known = truth is not None and (case.labels or case.roi is not None)
            opened = open_truth(case, source, table, truth) if known and truth is not None else None
        except SegcalError as error:
            problems.append(Problem(case.id, error))
            continue
        sources.append(CaseSource(case.id, case.group, source, opened, case.source))
    return Opened(tuple(sources), tuple(problems))


@dataclass(frozen=True, slots=True)
class LabelPredictionReader:
    """Reads an opened case: the ``load`` half of the work."""

    def __call__(self, source: CaseSource) -> Case:
        """Raises the refusals of formats and labels, IgnoredPrediction."""
        prediction, truth = source.prediction, source.truth
        header = prediction.parts[0].first
        numbers = files.read_labels(header)
        found = label_map(
            numbers.raw.reshape(prediction.shape[1:]),
            prediction.space,
            path=header.path,
            slope=numbers.slope,
            inter=numbers.inter,
            image_mask=numbers.image,
        )
        if found.ignored is not None and found.ignored.any():
            raise IgnoredPrediction(header.path, int(found.ignored.sum()))
        labels, roi = (None, None) if truth is None else read_truth(truth)
        codes = np.ascontiguousarray(found.codes)
        place = prediction.place if truth is None else truth.place
        # Codes are few, and float32 holds them exactly: a case of label maps travels like any other.
        volume = Volume(codes[None].astype(np.float32), place.grid, "probabilities", prediction.stored)
        digest = hashlib.sha256(repr(codes.shape).encode() + codes.astype(np.uint16).tobytes()).hexdigest()
        facts = CaseFacts(
            digest=digest,
            stored="labels",
            source=source.found,
            warnings=() if truth is None else truth.warnings,
            turned="" if truth is None else truth.turned,
        )
        return replace(Case(source.id, source.group, prediction.space, volume, labels, roi), facts=facts)
