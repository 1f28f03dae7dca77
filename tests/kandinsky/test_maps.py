"""Maps: features, k-means, and learning on the rings; places and frames; splits; specs."""

import hashlib

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from segcal_cli.core.volume import Grid
from segcal_cli.kandinsky.boundary import distance_bins, edge_of, shells, signed_distance
from segcal_cli.kandinsky.codes import score_codes
from segcal_cli.kandinsky.features import N_BINS, Features, bins_of, decile_bins, features, smoothed
from segcal_cli.kandinsky.frames import Frame
from segcal_cli.kandinsky.kmeans import kmeans, spread_to_rest
from segcal_cli.kandinsky.learning import Learner, TooFewToChoose
from segcal_cli.kandinsky.passes import MapPass
from segcal_cli.kandinsky.places import Placing, ShapesDiffer, choose_placing, grid_blocks
from segcal_cli.kandinsky.regions import Regions, grid_index
from segcal_cli.kandinsky.runs import counted
from segcal_cli.kandinsky.spec import BadOption, MapSpec, Needed, NoUse, UnknownClass, UnknownMethod
from segcal_cli.kandinsky.split import NotDivisible, folds, map_makers
from segcal_cli.kandinsky.views import View
from tests.kandinsky.builders_rings import AUTHORS, EXACT, PLACING, SPACE, cases, ring_map, run

POINTS = AUTHORS["A_points_class1"].astype(np.float64).reshape(-1, 4)
RING = ring_map().ravel()


def learned(some=None, keep=False, **options):
    spec = MapSpec(**options)
    spec.check(SPACE)
    channels = spec.learned_channels(SPACE)
    placing = None if spec.method == "boundary" else PLACING
    width = 0.5 if placing is None else 1.0
    kind = spec.features or "ecdf"
    found = run(MapPass(SPACE, channels, kind, placing, width, keep), some or cases("calibration"))
    return Learner(spec, channels, SPACE.names, placing, width).learn(found)


def codes_of(scores):
    return score_codes(np.array([1 - np.asarray(scores)], np.float32), "probabilities", 0, exclusive=False)


# Features.


def test_the_distribution_function_is_the_share_of_scores_in_and_below_each_pooled_decile():
    rng = np.random.default_rng(0)
    cells, scores = rng.integers(0, 3, 500), rng.random(500)
    bins = bins_of(codes_of(scores), "ecdf")
    run_ = counted(cells * N_BINS["ecdf"] + bins, 3 * N_BINS["ecdf"])
    points = decile_bins(run_)
    assert [int((bins <= point).sum()) >= 50 * (j + 1) for j, point in enumerate(points)] == [True] * 9
    assert [int((bins < point).sum()) < 50 * (j + 1) for j, point in enumerate(points)] == [True] * 9
    found = features(run_, 3, "ecdf")
    expected = [[np.mean(bins[cells == c] <= point) for point in points] for c in range(3)]
    assert np.abs(found.values - expected).max() < 1e-12


def test_quantile_features_are_linear_quantiles_within_a_bin():
    rng = np.random.default_rng(1)
    cells, scores = rng.integers(0, 4, 400), rng.uniform(0.05, 0.95, 400)
    run_ = counted(cells * N_BINS["quantiles"] + bins_of(codes_of(scores), "quantiles"), 4 * N_BINS["quantiles"])
    found = features(run_, 4, "quantiles", (0.6, 0.9))
    expected = [np.quantile(scores[cells == c], (0.6, 0.9)) for c in range(4)]
    assert np.abs(found.values - expected).max() < 0.003


def test_a_cell_without_the_class_is_unknown_and_nothing_is_nan():
    run_ = counted(np.array([5]), 2 * N_BINS["ecdf"])
    found = features(run_, 2, "ecdf")
    assert found.known.tolist() == [True, False]
    assert np.isfinite(found.values).all()
    assert np.isfinite(smoothed(found, (1, 2), (0.0, 1.0)).values).all()


def test_smoothing_weighs_places_by_their_voxels():
    given = Features(np.array([[0.0], [1.0]]), np.array([3.0, 1.0]))
    blurred = smoothed(given, (2,), (50.0,))
    assert blurred.values[:, 0] == pytest.approx([0.25, 0.25], abs=1e-3)


# k-means.


def test_kmeans_is_at_least_as_good_as_the_authors():
    found = kmeans(POINTS, np.ones(768), 4, 0)
    assert found.inertia <= float(AUTHORS["A_kmeans_inertia"]) * 1.001
    # Theirs is a local optimum (9.07086); ours is lower, so the two differ in a few cells.
    assert adjusted_rand_score(found.labels, AUTHORS["A_kmeans_mask"].ravel()) >= 0.985


def test_kmeans_numbers_clusters_by_their_mean_and_keeps_the_seed():
    a, b = (kmeans(POINTS, np.ones(768), 4, 3) for _ in range(2))
    assert np.array_equal(a.labels, b.labels)
    assert (np.diff(a.centres.mean(axis=1)) > 0).all()


def test_kmeans_has_no_more_clusters_than_there_are_different_points():
    assert len(kmeans(np.array([[0.0], [0.0], [1.0]]), np.ones(3), 4, 0).centres) == 2


def test_cells_without_enough_voxels_follow_the_nearest_valid_cell_in_mm():
    valid = np.array([[True, False, False, True]])
    labels = np.array([[7, 0, 0, 9]])
    assert spread_to_rest(labels, valid, (1.0, 1.0)).tolist() == [[7, 7, 9, 9]]


# Learning on the rings.


@pytest.mark.parametrize(("options", "least"), [
    ({"method": "annuli", "shape": "circle"}, 0.99),
    ({"method": "annuli"}, 0.97),
    ({"method": "kmeans"}, 0.85),
    ({"method": "star", "roughness": 1e-4}, 0.9),
    ({"method": "kmeans", "shared_map": True}, 0.85),
])  # fmt: skip
def test_learned_maps_find_the_rings(options, least):
    maps = learned(**options)
    assert set(maps) == {1, 2}
    assert adjusted_rand_score(RING, maps[1].cells.ravel()) >= least
    assert maps[1].described["objective"] < maps[1].described["objective_one_cluster"]


def test_the_number_of_clusters_is_chosen_on_held_out_patients():
    maps = learned(method="kmeans", k=0, keep=True, only=("organ",))
    assert 3 <= maps[1].k <= 7
    assert "chosen on held-out patients" in maps[1].notes[0]


def test_one_patient_cannot_choose_a_number_of_clusters():
    with pytest.raises(TooFewToChoose, match="needs at least 2"):
        learned(cases("calibration")[:2], method="kmeans", k=0, keep=True)


def test_boundary_edges_are_learned_along_the_distance():
    maps = learned(method="boundary", k=3)
    assert maps[1].k == len(maps[1].edges) + 1 <= 3
    assert list(maps[1].edges) == sorted(maps[1].edges)


def test_one_cluster_is_the_whole_image():
    maps = learned(method="annuli", k=1)
    assert maps[1].k == 1
    assert maps[1].cells is None


def test_a_class_in_no_map_making_label_gets_one_cluster_and_a_note():
    maps = learned(list(cases("calibration")[:1]), method="kmeans", min_count=1, smooth=0)
    assert maps[1].k > 1
    empty = MapSpec(method="kmeans")
    learner = Learner(empty, (1,), SPACE.names, PLACING)
    histograms = run(MapPass(SPACE, (1,), "ecdf", PLACING), [])
    assert learner.learn(histograms)[1].notes == (
        "organ: no map-making patient holds the class; one cluster for the whole image",
    )


# Boundary.


def test_signed_distances_are_those_to_the_nearest_voxel_on_the_other_side():
    mask = np.zeros((1, 1, 7), bool)
    mask[..., 2:5] = True
    assert signed_distance(mask, (1.0, 1.0, 2.0)).ravel().tolist() == [4, 2, -2, -4, -2, 2, 4]


def test_an_empty_mask_has_no_distance_and_a_full_one_lies_deepest():
    assert signed_distance(np.zeros((1, 2, 2), bool), (1, 1, 1)) is None
    assert (shells(signed_distance(np.ones((1, 2, 2), bool), (1, 1, 1)), (-5, 0)) == 0).all()


def test_an_edge_belongs_to_the_shell_below_it():
    assert shells(np.array([-2.0, -1.0, 1.0, 1.2, 1.2000004]), (-1.0, 1.2)).tolist() == [0, 0, 1, 1, 1]
    assert shells(np.array([1.21]), (-1.0, 1.2)).tolist() == [2]


def test_bins_of_distances_meet_their_edges():
    bins = distance_bins(np.array([-np.inf, -0.5, 0.4, 0.5, 0.6, 1e9]), 0.5)
    assert bins.tolist() == [0, 126, 128, 128, 129, 255]
    assert edge_of(129, 0.5) == 0.5


def test_the_shells_of_the_rings_are_those_of_the_brute_force():
    regions = Regions("boundary", (1, 6, 6), edges={1: (-1.2, 0.0, 1.2, 2.1), 2: (0.0,)})
    for image in range(4):
        found = regions.clusters(View(cases("test")[image]), 1).index.reshape(24, 32)
        assert np.array_equal(found, EXACT["A_boundary_map_class1_test0to3"][image])


# Places.


def affine(axes, signs, spacing):
    made = np.eye(4)
    made[:3, :3] = np.zeros((3, 3))
    for voxel, (world, sign, edge) in enumerate(zip(axes, signs, spacing, strict=True)):
        made[world, voxel] = sign * edge
    return made


@pytest.mark.parametrize(
    ("axes", "signs"), [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (1, -1, -1))]
)
def test_a_scan_in_any_orientation_has_one_canonical_form(axes, signs):
    canonical = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    # The array "z y x" whose voxel axes run along these world axes.
    stored = canonical.transpose(tuple(2 - axes[2 - axis] for axis in range(3)))
    stored = np.flip(stored, tuple(2 - voxel for voxel, sign in enumerate(signs) if sign < 0))
    frame = Frame.of(Grid(stored.shape, affine(axes, signs, (1.0, 2.0, 3.0))))
    assert np.array_equal(frame.canonical(stored), canonical)
    assert np.array_equal(frame.to_scan(canonical), stored)
    edges = dict(zip(axes, (1.0, 2.0, 3.0), strict=True))
    assert frame.spacing == (edges[2], edges[1], edges[0])


def test_blocks_of_a_grid_are_the_reference_map():
    assert np.array_equal(grid_index(PLACING_FRAME, (4, 3)).reshape(24, 32), EXACT["A_grid_map"])


PLACING_FRAME = Frame.of(Grid((1, 24, 32)))


def test_blocks_are_those_of_the_middle_of_a_voxel_in_whole_numbers():
    assert grid_blocks(Frame.of(Grid((1, 1, 5))), (2, 1))[2].tolist() == [0, 0, 1, 1, 1]


def test_scans_of_other_shapes_are_placed_by_share_of_their_extent():
    frames = [Frame.of(Grid((1, 10, n))) for n in (10, 20, 20)]
    placing, note = choose_placing(frames, None, None, has_roi=False)
    assert placing.coords == "unit"
    assert "differ in shape" in note
    cells, beyond = placing.cells_of(frames[0], None, None)
    assert placing.shape == (1, 10, 20)
    assert cells[2].tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert not any(axis.any() for axis in beyond)
    with pytest.raises(ShapesDiffer, match="10 x 10 x 1"):
        choose_placing(frames, "index", None, has_roi=False)


def test_places_in_mm_are_counted_from_the_images_centre_and_beyond_the_field_take_the_nearest_cell():
    placing = Placing("mm", (1, 1, 5), (1.0, 1.0, 2.0))
    frame = Frame.of(Grid((1, 1, 7), np.diag([2.0, 1.0, 1.0, 1.0])))
    cells, beyond = placing.cells_of(frame, None, None)
    assert cells[2].tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert beyond[2].tolist() == [True, False, False, False, False, False, True]


def test_places_about_an_object_move_with_it():
    placing = Placing("object", (1, 1, 9), (1.0, 1.0, 1.0))
    frame = Frame.of(Grid((1, 1, 5)))
    assert placing.cells_of(frame, None, (0, 0, 1.0))[0][2].tolist() == [3, 4, 5, 6, 7]


def test_large_fields_are_cut_into_blocks():
    placing, _ = choose_placing([Frame.of(Grid((150, 240, 240)))], None, None, has_roi=False)
    assert placing.block == 3
    assert placing.n_cells <= 2**20


# Splits and specs.


def test_the_split_is_that_of_the_hashes():
    units = [f"p{n}" for n in range(10)]
    order = sorted(units, key=lambda unit: hashlib.sha256(f"7:{unit}".encode()).digest())
    assert map_makers(units, 0.3, 7) == frozenset(order[:3])
    assert map_makers(["a", "b"], 0.9, 0) != {"a", "b"}


def test_one_patient_cannot_be_split():
    with pytest.raises(NotDivisible, match="1 patient cannot be split into map and calibration; use --map"):
        map_makers(["a"], 0.3, 0)


def test_folds_part_the_patients():
    parts = folds(map(str, range(12)), 5, 0)
    assert sorted(len(part) for part in parts) == [2, 2, 2, 3, 3]
    assert len(frozenset().union(*parts)) == 12


@pytest.mark.parametrize(("options", "error"), [
    ({"method": "circles"}, UnknownMethod),
    ({"method": "image", "k": 3}, NoUse),
    ({"method": "boundary", "shared_map": True}, NoUse),
    ({"method": "boundary", "coords": "mm"}, NoUse),
    ({"method": "atlas", "atlas": True, "coords": "index"}, NoUse),
    ({"method": "kmeans", "optimizer": "de"}, NoUse),
    ({"method": "boundary", "edges": (0.0,), "k": 3}, NoUse),
    ({"method": "kmeans", "levels": (0.5,)}, NoUse),
    ({"method": "annuli", "shape": "circle", "free_axes": True}, NoUse),
    ({"method": "grid"}, Needed),
    ({"method": "atlas"}, Needed),
    ({"method": "boundary", "edges": (3.0, 1.0)}, BadOption),
    ({"method": "star", "objective": "energy"}, BadOption),
    ({"method": "grid", "grid": (0, 3)}, BadOption),
    ({"method": "kmeans", "k": 300}, BadOption),
    ({"only": ("liver",)}, UnknownClass),
])  # fmt: skip
def test_options_that_a_method_has_no_use_for_are_refused(options, error):
    with pytest.raises(error):
        MapSpec(**options).check(SPACE)


def test_learned_maps_leave_the_background_to_the_whole_image_unless_asked():
    assert MapSpec().learned_channels(SPACE) == (1, 2)
    assert MapSpec(cluster_background=True).learned_channels(SPACE) == (0, 1, 2)
    assert MapSpec(method="pixel").learned_channels(SPACE) == (0, 1, 2)
    assert MapSpec(only=("other",)).learned_channels(SPACE) == (2,)
