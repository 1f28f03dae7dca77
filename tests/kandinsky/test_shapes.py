"""Shapes: shells found exactly, annuli and stars on maps with known shells."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from segcal_cli.kandinsky.annuli import Field, fit_annuli, fit_annuli_by_evolution, shell_labels
from segcal_cli.kandinsky.ellipsoids import Family
from segcal_cli.kandinsky.features import Features
from segcal_cli.kandinsky.objectives import distances, labels_cost, pair_distance, squared_error
from segcal_cli.kandinsky.shells import Binned, best_runs, binned, least_cost, sse_costs
from segcal_cli.kandinsky.star import (
    DEFAULT_ORDER,
    basis,
    fit_star,
    frequencies,
    objective,
    rays_of,
)
from tests.kandinsky.builders_features import core, make, sse
from tests.kandinsky.builders_rings import AUTHORS, EXACT

POINTS = AUTHORS["A_points_class1"].astype(np.float64).reshape(-1, 4)
FIELD = Field((24, 32), (1.0, 1.0))


def annuli_of(name, k=4):
    x, shell, shape, spacing = make(name)
    given_ = Features(x, np.ones(len(x)))
    field = Field(shape, spacing)
    shape_name = "ellipse" if field.dimension == 2 else "ellipsoid"
    return x, shell, given_, field, fit_annuli(given_, field, Family(field.dimension, shape_name), k)


@given(st.integers(0, 10**6), st.integers(3, 12), st.integers(1, 4))
def test_dynamic_programming_finds_what_trying_all_cuts_finds(seed, n_bins, k):
    rng = np.random.default_rng(seed)
    sums = np.column_stack((rng.normal(size=(n_bins, 2)), rng.integers(0, 4, n_bins)))
    sums[sums[:, -1] == 0] = 0
    costs = sse_costs(sums)
    value, cuts = best_runs(costs, k)
    edges = (0, *cuts, n_bins)
    assert sum(costs[a, b] for a, b in itertools.pairwise(edges)) == pytest.approx(value, abs=1e-12)
    every = [
        sum(costs[a, b] for a, b in itertools.pairwise((0, *inner, n_bins)))
        for inner in itertools.combinations_with_replacement(range(n_bins + 1), k - 1)
    ]
    assert value == pytest.approx(min(every), abs=1e-12)
    assert least_cost(costs, k) == pytest.approx(value, abs=1e-12)


def test_a_distance_on_a_bins_edge_lies_in_the_bin_below():
    assert binned(np.array([0.0, 1.0, 1.0 + 1e-12, 1.1, 2.0]), 2, 2.0).bins.tolist() == [0, 0, 0, 1, 1]


def test_a_shell_holds_its_outer_radius_and_the_centre_is_in_the_core():
    assert shell_labels(np.array([0.0, 1.0, 1.5, 2.0, 9.0]), (1.0, 2.0)).tolist() == [0, 0, 1, 1, 2]


def test_the_papers_objective_at_the_authors_parameters():
    gaps = distances(POINTS)
    rows, columns = np.mgrid[0:24, 0:32]
    for parameters, expected in zip(AUTHORS["A_obj_params"], AUTHORS["A_obj_values_exact"], strict=True):
        distance = np.sqrt((columns - 16 - parameters[0]) ** 2 + (12 - rows - parameters[1]) ** 2).ravel()
        edges = (0.0, *parameters[2:], np.inf)
        members = [(distance >= low) & (distance < high) for low, high in itertools.pairwise(edges)]
        value = sum(gaps[np.ix_(member, member)].sum() for member in members) / 768
        assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_evolution_reaches_the_global_optimum_of_the_papers_objective(seed):
    found = fit_annuli_by_evolution(Features(POINTS, np.ones(768)), FIELD, Family(2, "circle"), 4, "paper", seed)
    assert 31.1380 <= found.objective <= 31.145
    assert found.objective >= float(EXACT["A_annuli_optimum_paper_objective"][0]) - 1e-4


@pytest.mark.parametrize(("sd", "name", "size"), [
    (0.02, "sse", 113), (0.02, "energy", 113), (0.02, "paper", 941),
    (0.1, "sse", 113), (0.1, "energy", 113), (0.1, "paper", 1457),
])  # fmt: skip
def test_the_papers_objective_seeks_equal_areas_and_the_others_the_core(sd, name, size):
    x, distance = core(sd)
    x, distance = x.reshape(-1, 4), distance.ravel()
    given_ = Features(x, np.ones(len(x)))
    places = np.zeros((len(x), 1))
    on = squared_error(places, given_)
    if name != "sse":
        on = pair_distance(places, given_, paper=name == "paper", seed=0, most=10**6)
    different, bins = np.unique(distance, return_inverse=True)
    _, cuts = best_runs(on.costs(Binned(bins, 1.0, len(different))), 2)
    assert (bins < cuts[0]).sum() == size


def test_the_cost_of_labels_is_the_cost_of_their_runs():
    x, distance = core(0.1)
    given_ = Features(x.reshape(-1, 4), np.random.default_rng(0).integers(1, 5, x.shape[0] * x.shape[1]).astype(float))
    labels = (distance.ravel() > 10).astype(int) + (distance.ravel() > 20)
    for on in (
        squared_error(np.zeros((3072, 1)), given_),
        pair_distance(np.zeros((3072, 1)), given_, paper=False, seed=0, most=10**6),
    ):
        costs = on.costs(Binned(labels, 1.0, 3))
        expected = on.constant + costs[0, 1] + costs[1, 2] + costs[2, 3]
        assert labels_cost(on, labels, 3) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("name", "least"), [
    ("ellipse_sd04", 0.985),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("ellipsoid_sd02", 0.98),
        ("ellipse_sd01", 0.985), ("ellipse_sd10", 0.97), ("ellipsoid_sd10", 0.98), ("aniso_sd05", 0.98),
    )),
])  # fmt: skip
def test_annuli_find_the_shells_of_a_map(name, least):
    x, shell, _, _, found = annuli_of(name)
    assert adjusted_rand_score(shell, found.labels) >= least
    assert sse(found.labels, x) <= 1.005 * sse(shell, x)
    assert sse(found.labels, x) == pytest.approx(found.objective, rel=1e-9)


@pytest.mark.parametrize(("name", "least"), [
    ("bean_sd04", 0.96),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("bean_sd01", 0.96), ("ellipsoid_sd02", 0.95), ("ellipsoid_sd10", 0.95), ("aniso_sd05", 0.95),
    )),
])  # fmt: skip
def test_stars_find_shells_that_no_ellipse_has(name, least):
    _, shell, given_, field, start = annuli_of(name)
    shells, _ = fit_star(given_, field, start)
    assert adjusted_rand_score(shell, shells.labels(field.places)) >= least
    if name.startswith("bean"):
        assert adjusted_rand_score(shell, start.labels) < 0.7


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_gradient_of_a_star_is_that_of_finite_differences(dimension):
    shape = (20, 30) if dimension == 2 else (12, 14, 10)
    field = Field(shape, (1.0,) * dimension)
    rng = np.random.default_rng(0)
    given_ = Features(rng.normal(size=(int(np.prod(shape)), 2)), rng.integers(1, 9, int(np.prod(shape))).astype(float))
    rays = rays_of(given_, field, field.middle)
    order = DEFAULT_ORDER[dimension]
    base, orders = basis(rays.directions, order), frequencies(dimension, order)
    start = np.zeros((2, base.shape[1]))
    start[:, 0] = np.log([4.0**dimension / 2, 3.0**dimension])
    x = (start + 0.05 * rng.normal(size=start.shape)).ravel()
    value, gradient = objective(x, rays, base, orders, 1e-3)
    step = 1e-6
    numeric = [
        (
            objective(x + step * row, rays, base, orders, 1e-3)[0]
            - objective(x - step * row, rays, base, orders, 1e-3)[0]
        )
        / (2 * step)
        for row in np.eye(x.size)
    ]
    assert np.isfinite(value)
    assert np.abs(gradient - numeric).max() <= 1e-5 * np.abs(gradient).max()


def test_the_spherical_basis_is_orthonormal_over_the_sphere():
    from segcal_cli.kandinsky.star import _directions

    base = basis(_directions(3), 2)
    assert np.abs(base.T @ base / len(base) - np.eye(9)).max() < 0.01


def test_stars_are_nested_and_positive_whatever_their_coefficients():
    from segcal_cli.kandinsky.star import StarShells, _directions

    shells = StarShells((0.0, 0.0), np.random.default_rng(0).normal(0, 3, (3, 9)), 4)
    radii = shells.radii(_directions(2))
    assert (radii[0] > 0).all()
    assert (np.diff(radii, axis=0) >= 0).all()


def test_equal_features_give_one_shell():
    found = fit_annuli(Features(np.ones((768, 3)), np.ones(768)), FIELD, Family(2, "circle"), 4)
    assert found.k == 1


def test_an_object_outside_the_search_lies_at_the_bound():
    rows, columns = np.mgrid[0:24, 0:32]
    x = (np.hypot(rows - 2, columns - 2) < 4).astype(float).reshape(-1, 1)
    assert fit_annuli(Features(x, np.ones(768)), FIELD, Family(2, "circle"), 2).at_bound
