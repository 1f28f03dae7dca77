"""2,000 mutations of every kind of input, in each run of the suite; ``make fuzz`` does the same with 100,000."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import SEED, keep
from tests.fuzz.every import SCENES
from tests.fuzz.trials import Stage

MUTATIONS = 2_000
"""Shared out among the scenes evenly."""


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_damaged_input_ends_in_time_with_a_documented_exit_code_and_no_traceback(scene, tmp_path):
    stage = Stage(scene, tmp_path / "scene")
    findings = [stage.trial(SEED, number) for number in range(-(-MUTATIONS // len(SCENES)))]
    found = [finding for finding in findings if finding is not None]
    for finding in found:
        keep(finding, tmp_path / "findings")
    assert not found, "\n\n".join(map(str, found[:3]))
