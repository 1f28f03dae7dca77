"""The torch path of a fit against numpy's: on the CPU always, and on a GPU where there is one."""

import pickle

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from segcal_cli.core.volume import Grid, Stored, Volume
from segcal_cli.kandinsky.arrays import HOST, arrays_on
from segcal_cli.kandinsky.codes import INFINITE, score_codes
from segcal_cli.kandinsky.features import features
from segcal_cli.kandinsky.kmeans import kmeans
from segcal_cli.kandinsky.learning import Learner
from segcal_cli.kandinsky.passes import PAIR_BYTES, CalibrationPass, MapPass
from segcal_cli.kandinsky.pools import Pools
from segcal_cli.kandinsky.regions import Regions
from segcal_cli.kandinsky.runs import Run, coarsened, counted, empty_run, join
from segcal_cli.kandinsky.spec import MapSpec
from segcal_cli.kandinsky.tensors import TensorArrays, codes_of
from segcal_cli.kandinsky.views import AtlasCase
from tests.kandinsky.builders_rings import AUTHORS, EXACT, PLACING, SPACE, cases, run

torch = pytest.importorskip("torch")

SOME = cases("calibration")[:24]
GROUPS = {case.group: 2 for case in SOME}
REGIONS = {
    "image": Regions("image", (1, 1, 1)),
    "pixel": Regions("pixel", (768,) * 3, PLACING),
    "atlas": Regions("atlas", (3,) * 3, values=(0, 1, 2)),
    "boundary": Regions("boundary", (1, 6, 6), edges=dict.fromkeys((1, 2), (-1.2, 0.0, 1.2, 2.1))),
}
"""The atlas of the rings has a fourth value, so that some voxels belong to no slot."""


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def arrays(request):
    return TensorArrays(request.param)


def same(a, b):
    assert a.dtype == b.dtype
    assert np.array_equal(a, b)


def same_pools(a, b):
    for name in ("offsets", "codes", "mass", "counts"):
        same(getattr(a, name), getattr(b, name))
    assert a.shift == b.shift


def logits_of(case):
    """The same case as logits."""
    volume = case.volume
    array = np.log(np.maximum(volume.array, 1e-4)).astype(np.float32)
    return AtlasCase(
        case.id,
        case.group,
        case.space,
        Volume(array, Grid(volume.grid.shape), "logits", Stored("float32")),
        case.labels,
        atlas=case.atlas,
    )


def test_codes_of_probabilities_are_the_same_to_the_last_bit(arrays):
    rng = np.random.default_rng(0)
    p = np.concatenate(([0.0, 1.0, 0.5, 1e-45, 1 - 6e-8, 2e-10], rng.random(5000), rng.random(5000) ** 12))
    part = np.stack((p, 1 - p)).astype(np.float32)
    for channel in range(2):
        found = codes_of(torch.as_tensor(part, device=arrays.device), "probabilities", channel, exclusive=True)
        expected = score_codes(part, "probabilities", channel, exclusive=True)
        assert np.array_equal(found.cpu().numpy(), expected)


@pytest.mark.parametrize(("classes", "exclusive"), [(2, True), (4, True), (2, False)])
def test_codes_of_logits_differ_by_one_at_most(arrays, classes, exclusive):
    part = np.random.default_rng(1).normal(0, 12, (classes, 20000)).astype(np.float32)
    for channel in range(classes):
        found = codes_of(torch.as_tensor(part, device=arrays.device), "logits", channel, exclusive=exclusive)
        gap = np.abs(found.cpu().numpy() - score_codes(part, "logits", channel, exclusive=exclusive).astype(np.int64))
        assert gap.max() <= 1
        assert (gap == 0).mean() > 0.99


@pytest.mark.parametrize("kind", ["ecdf", "quantiles"])
@pytest.mark.parametrize("keep", [False, True])
def test_histograms_of_places_are_the_same_to_the_last_count(arrays, kind, keep):
    found, expected = (
        run(MapPass(SPACE, (1, 2), kind, PLACING, keep_groups=keep, arrays=one), SOME) for one in (arrays, HOST)
    )
    same(found.all.keys, expected.all.keys)
    same(found.all.columns, expected.all.columns)
    assert list(found.by_group) == list(expected.by_group)
    for group in expected.by_group:
        same(found.by_group[group].columns, expected.by_group[group].columns)


@pytest.mark.parametrize("method", REGIONS)
def test_pools_are_the_same_to_the_last_share(arrays, method):
    found, expected = (run(CalibrationPass(SPACE, REGIONS[method], GROUPS, 10**9, one), SOME) for one in (arrays, HOST))
    for a, b in zip(found, expected, strict=True):
        same_pools(a, b)


def test_pools_are_coarsened_alike_where_memory_is_short_and_a_case_is_missing(arrays):
    found, expected = (
        run(CalibrationPass(SPACE, REGIONS["pixel"], GROUPS, 4000 * PAIR_BYTES, one), SOME[:-1])
        for one in (arrays, HOST)
    )
    assert expected[0].shift > 0
    for a, b in zip(found, expected, strict=True):
        same_pools(a, b)


def test_pools_of_logits_hold_the_same_voxels(arrays):
    some = [logits_of(case) for case in SOME]
    (found, _), (expected, _) = (
        run(CalibrationPass(SPACE, REGIONS["boundary"], GROUPS, 10**9, one), some) for one in (arrays, HOST)
    )
    assert np.array_equal(found.n_voxels, expected.n_voxels)
    assert np.array_equal(found.n_groups, expected.n_groups)
    limits = [one.thresholds(0.2, "patient").astype(np.int64) for one in (found, expected)]
    assert np.abs(limits[0] - limits[1]).max() <= 1


@pytest.mark.parametrize("method", REGIONS)
@pytest.mark.parametrize("weighting", ["patient", "voxel"])
def test_thresholds_are_the_same_infinities_included(arrays, method, weighting):
    pools, _ = run(CalibrationPass(SPACE, REGIONS[method], GROUPS, 10**9), SOME)
    infinite = 0
    for alpha in EXACT["alphas"]:
        found = arrays.thresholds(pools, float(alpha), weighting)
        same(found, pools.thresholds(float(alpha), weighting))
        infinite += int((found == INFINITE).sum())
    assert infinite or weighting == "voxel"


def test_sums_beyond_63_bits_wrap_around_without_harm(arrays):
    """Slots of 2^18 patients each: 2^62 per slot, so that the sum over four slots does not fit."""
    n = 1 << 18
    share = 1 << 44
    keys = np.concatenate([(slot << 16) + np.array([10, 20]) for slot in range(4)])
    mass = np.tile([n * share // 4, n * share - n * share // 4], 4)
    pools = Pools.of(Run(keys, np.stack((mass, np.tile([n, n], 4)))), 4)
    for alpha in (0.5, 0.9):
        same(arrays.thresholds(pools, alpha, "patient"), pools.thresholds(alpha, "patient"))


@pytest.mark.parametrize("bits", [0, 3])
def test_runs_join_and_coarsen_alike(arrays, bits):
    rng = np.random.default_rng(2)
    runs = [counted(rng.integers(0, 5 << 16, n), 1 << 40) for n in (4000, 50, 1)]
    runs.append(empty_run(1))
    found = arrays.host(arrays.coarsened(arrays.join(runs), bits))
    expected = coarsened(join(runs), bits, 16)
    same(found.keys, expected.keys)
    same(found.columns, expected.columns)


def test_a_patient_without_scores_has_no_shares(arrays):
    assert arrays.host(arrays.patient_run(empty_run(1))).columns.shape == (2, 0)


def test_quantile_features_are_the_same(arrays):
    given = run(MapPass(SPACE, (1,), "quantiles", PLACING), SOME[:6]).all
    levels = (0.0, 0.05, 0.5, 0.6, 0.9, 1.0)
    found = features(given, PLACING.n_cells, "quantiles", levels, find=arrays.quantiles)
    expected = features(given, PLACING.n_cells, "quantiles", levels)
    assert (expected.weights == 0).any()
    assert np.abs(found.values - expected.values).max() <= 1e-15


def test_kmeans_finds_the_same_clusters(arrays):
    points = AUTHORS["A_points_class1"].astype(np.float64).reshape(-1, 4)
    host, device = (kmeans(points, np.ones(768), 4, 0, steps) for steps in (None, arrays.steps))
    assert adjusted_rand_score(host.labels, device.labels) >= 0.999
    assert device.inertia == pytest.approx(host.inertia, rel=1e-6)


def test_kmeans_fills_empty_clusters_alike(arrays):
    """Far more clusters than there are groups of points, so that some become empty on the way."""
    rng = np.random.default_rng(3)
    points = np.repeat(rng.random((12, 1)), 3, axis=1) + 1e-9 * rng.random((12, 3))
    host, device = (kmeans(points, np.ones(12), 9, 1, steps) for steps in (None, arrays.steps))
    assert np.array_equal(host.labels, device.labels)


@pytest.mark.parametrize("options", [{"features": "quantiles", "levels": (0.5, 0.7, 0.9)}, {}])
def test_a_learned_map_is_the_same(arrays, options):
    spec = MapSpec(method="kmeans", k=4, **options)
    maps = []
    for one in (arrays, HOST):
        histograms = run(MapPass(SPACE, (1,), spec.features or "ecdf", PLACING, arrays=one), SOME)
        maps.append(Learner(spec, (1,), SPACE.names, PLACING, arrays=one).learn(histograms)[1].cells.ravel())
    assert adjusted_rand_score(*maps) >= 0.999


def test_a_state_travels_between_processes(arrays):
    estimator = CalibrationPass(SPACE, REGIONS["image"], GROUPS, 10**9, arrays)
    state = estimator.empty()
    for case in SOME:
        part = pickle.loads(pickle.dumps(estimator.update(estimator.empty(), case)))
        state = estimator.merge(state, part)
    for a, b in zip(
        estimator.finish(state), run(CalibrationPass(SPACE, REGIONS["image"], GROUPS, 10**9), SOME), strict=True
    ):
        same_pools(a, b)


def test_the_cpu_is_numpys_and_everything_else_is_torchs():
    assert arrays_on("cpu") is HOST
    assert arrays_on("cuda") == TensorArrays("cuda")
