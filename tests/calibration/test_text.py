"""The words of a fit and the map of a calibrator."""

from __future__ import annotations

import numpy as np
import pytest

from segcal_cli.calibration.calibrator import Calibrator
from segcal_cli.calibration.text import calibration_map, map_lines, report
from tests.calibration.builders_cases import binary_cases, regions, space_of
from tests.calibration.test_fit import QUIET, run


def test_the_map_has_eleven_points_and_goes_through_one_half():
    points = calibration_map(Calibrator("temperature", space_of(1, "sigmoid"), np.array([[2.0]])))["c0"]
    assert [raw for raw, _ in points] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert points[5][1] == pytest.approx(0.5)
    assert points[9][1] == pytest.approx(1 / (1 + np.exp(-np.log(9) / 2)), rel=1e-6)


def test_the_map_of_exclusive_classes_says_how_the_rest_is_shared():
    calibrator = Calibrator("temperature", space_of(3), np.array([[2.0]]))
    assert map_lines(calibrator)[0] == "(the other classes share the rest equally)"
    assert calibration_map(calibrator)["c1"][5][1] == pytest.approx(0.5**0.5 / (0.5**0.5 + 2 * 0.25**0.5), rel=1e-6)
    assert map_lines(calibrator)[1] == "c0, c1, c2: raw p -> calibrated p"
    assert len(map_lines(calibrator)) == 1 + 12


def test_classes_with_maps_of_their_own_are_drawn_apart():
    calibrator = Calibrator("temperature", space_of(2, "sigmoid"), np.array([[2.0], [3.0]]))
    assert [line for line in map_lines(calibrator) if "->" in line and "raw" in line] == [
        "c0: raw p -> calibrated p",
        "c1: raw p -> calibrated p",
    ]


def test_the_report_names_method_parameters_gain_cut_and_warnings():
    lines = report(run(binary_cases(4, 4000, 0), QUIET.__class__(method="platt")))
    assert lines[0] == "platt on 4 cases of 4 patients, 16000 voxels"
    assert lines[1].startswith("a (c0) = 0.")
    assert "95 % of patient resamples" in lines[1]
    assert any(line.startswith("NLL ") and "(out of fold, 4 folds over patients" in line for line in lines)
    assert any(line.startswith("c0: 0.5 after calibration is 0.") for line in lines)
    assert any(line.startswith("warning: Were these cases held out") for line in lines)


def test_the_map_of_a_nested_region_is_its_own_whatever_the_other_regions_do():
    # p of the inner region rises above that of the outer one at 0.5: the projection would average the two.
    calibrator = Calibrator("platt", regions({1, 2}, {2}), np.array([[1.0, -1.0], [1.0, 1.0]]))
    found = calibration_map(calibrator)
    assert found["r0"][5][1] == pytest.approx(1.0 / (1.0 + np.e), abs=1e-6)
    assert found["r1"][5][1] == pytest.approx(np.e / (1.0 + np.e), abs=1e-6)
