"""The options that a report tells: everything that decided what it shows, defaults included, in words.

What has no bearing is left out: how the kernel samples where nothing is sampled, levels of sets where none are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from segcal_cli.workflows.idle_options import DRAWN_WITH
from segcal_cli.workflows.judged import DRAWN_OF
from segcal_cli.workflows.provenance import given_options, in_words
from segcal_cli.workflows.requests import JudgeOptions, ReliabilityOptions
from segcal_cli.workflows.study import Study

OF_KERNEL = ("kde_sample", "kde_bandwidth")
"""Settings of ``kde_ece`` alone."""

DEFAULTS = {"kde_bandwidth": "auto", "convention": "none", "cells": "none"}
"""What options without a value are called."""


def report_options(
    study: Study, picturing: ReliabilityOptions, judging: JudgeOptions, plots: Sequence[str], formats: Sequence[str]
) -> dict[str, str]:
    """Option -> value. plots: those asked for; formats: of the files beside the report, none for a report alone."""
    evaluation, intervals = study.evaluation, study.evaluation.intervals
    settings: dict[str, Any] = asdict(evaluation.settings)
    if "kde_ece" not in evaluation.settings.wanted:
        settings = {name: value for name, value in settings.items() if name not in OF_KERNEL}
    if evaluation.space.binary or not evaluation.space.exclusive:
        del settings["background"]
    if not evaluation.space.exclusive:
        settings["decision"] = "p > 0.5"
    values: dict[str, Any] = {
        "values": study.values,
        "activation": evaluation.space.activation,
        "classes": evaluation.space.names,
        "convention": evaluation.convention,
        **settings,
        "roi": evaluation.roi,
        "level": intervals.level,
        "bootstrap": intervals.resamples,
        "seed": intervals.seed,
        **_of_pictures(study, picturing, plots, formats),
    }
    told = {
        name.replace("_", "-"): DEFAULTS[name] if name in DEFAULTS and not value else in_words(value)
        for name, value in values.items()
    }
    for name, value in {**study.provenance.options, **given_options(judging)}.items():
        told.setdefault(name, value)
    return told


def _of_pictures(
    study: Study, picturing: ReliabilityOptions, plots: Sequence[str], formats: Sequence[str]
) -> dict[str, Any]:
    kinds = {verdict.judged.artifact.header.kind for verdict in study.verdicts}
    drawn = set(plots)
    bearing = {
        "format": bool(formats),
        **{name: not drawn.isdisjoint(of) for name, of in DRAWN_WITH.items()},
        **{name: not kinds.isdisjoint(of) for name, of in DRAWN_OF.items()},
        # Told with what was read, or where scans lie under pictures.
        "features": False,
        "images": picturing.images is not None,
    }
    return {name: value for name, value in asdict(picturing).items() if bearing.get(name, True)}
