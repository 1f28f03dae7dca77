"""One pass in float32 against float64 of every voxel: what a threshold can hang on is the same number."""

import numpy as np
import pytest

from segcal_cli.confidence import log_odds as module
from segcal_cli.confidence.features import BandSums
from segcal_cli.confidence.log_odds import full_log_odds
from segcal_cli.confidence.risk_control import EDGES, missed_below
from segcal_cli.confidence.scan import scan
from segcal_cli.confidence.targets import Target
from segcal_cli.confidence.views import views
from segcal_cli.core.case import Case
from segcal_cli.core.labels import Channel, LabelMap, LabelSpace
from segcal_cli.core.volume import Grid, Stored, Volume

SHAPE = (6, 9, 8)
SOFTMAX = LabelSpace(tuple(Channel(name, frozenset({i})) for i, name in enumerate("oab")), "softmax")
SIGMOID = LabelSpace((Channel("a", frozenset({1})), Channel("b", frozenset({2}))), "sigmoid")


def case_of(exclusive, values, scale, seed, *, roi=False, ignored=False, truth=True):
    """Random scores; at a scale of 60 many are beyond what float32 can say, and beyond the clip."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(3 if exclusive else 2, *SHAPE)) * scale
    if values == "probabilities":
        if exclusive:
            p = np.exp(z - z.max(axis=0))
            z = p / p.sum(axis=0)
        else:
            z = 1 / (1 + np.exp(-z))
    space = SOFTMAX if exclusive else SIGMOID
    codes = rng.integers(0, 3, SHAPE).astype(np.uint8)
    codes[[0, 3]] = 0
    members = np.array([[code in channel.values for code in range(3)] for channel in space.channels])
    labels = LabelMap(codes, members, rng.random(SHAPE) < 0.2 if ignored else None)
    volume = Volume(z.astype(np.float32), Grid(SHAPE, None), values, Stored("float32"))
    return Case("c", "c", space, volume, labels if truth else None, rng.random(SHAPE) < 0.7 if roi else None)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("values", ["logits", "probabilities"])
@pytest.mark.parametrize("scale", [0.001, 3.0, 60.0])
@pytest.mark.parametrize("limits", [{}, {"roi": True}, {"ignored": True}])
def test_maxima_and_counts_of_the_truth_are_those_of_float64(exclusive, values, scale, limits, monkeypatch):
    """Slabs of one plane, so that a maximum has to be looked for in the right one."""
    monkeypatch.setattr(module, "SLAB_VOXELS", 1)
    for seed in range(4):
        case = case_of(exclusive, values, scale, seed, **limits)
        targets = [Target("a", (1 if exclusive else 0,)), Target("b", (2 if exclusive else 1,))]
        made = views(case, targets)
        for view, found, threaded in zip(made, scan(made), scan(made, threads=2), strict=True):
            s = full_log_odds(case.volume.array, values, view.target, exclusive=exclusive)
            free = ~view.truth if view.counted is None else view.counted & ~view.truth
            assert found.tau == s[free].max()
            assert found.gamma == (-s[view.truth]).max()
            assert np.array_equal(found.missed, missed_below(s[view.truth]))
            exact = BandSums.of(s if view.domain is None else s[view.domain])
            assert found.bands.largest == exact.largest
            assert found.bands.total == pytest.approx(exact.total, rel=1e-5 if scale < 60 else 1e-2)
            assert (threaded.tau, threaded.gamma, threaded.bands) == (found.tau, found.gamma, found.bands)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("exclusive", [True, False])
def test_maxima_at_the_end_of_what_float32_can_say_are_those_of_float64(exclusive, sign, monkeypatch):
    """Log-odds of 84 to 101 either way: where exp runs into numbers without digits, and then out of numbers."""
    monkeypatch.setattr(module, "SLAB_VOXELS", 1)
    for seed in range(40):
        case = case_of(exclusive, "logits", 1.0, seed)
        rng = np.random.default_rng(seed)
        target = 1 if exclusive else 0
        case.volume.array[:] = 0.0
        for plane, most in zip(case.volume.array[target], rng.uniform(85.0, 101.0, SHAPE[0]), strict=True):
            plane[...] = sign * rng.uniform(84.0, most, plane.shape)
        view = views(case, [Target("a", (target,))])[0]
        s = full_log_odds(case.volume.array, "logits", view.target, exclusive=exclusive)
        (found,) = scan([view])
        assert (found.tau, found.bands.largest) == (s[~view.truth].max(), s.max())


def test_without_labels_there_are_features_only():
    (found,) = scan(views(case_of(True, "logits", 3.0, 0, truth=False), [Target("a", (1,))]))
    assert (found.tau, found.gamma, found.missed) == (-np.inf, -np.inf, None)
    assert found.bands.voxels == np.prod(SHAPE)


def test_every_voxel_of_the_truth_is_filed_under_the_edges_up_to_it():
    """Against a search, at the edges, beside them and beyond both ends."""
    s = np.concatenate([EDGES, np.nextafter(EDGES, -99), np.nextafter(EDGES, 99), [-100.0, 100.0, -1e-20, 0.0]])
    expected = [int(np.count_nonzero(s < edge)) for edge in EDGES[::371]]
    assert missed_below(s)[::371].tolist() == expected
