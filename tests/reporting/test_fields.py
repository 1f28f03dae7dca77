"""Maps of clusters: borders as long lines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from segcal_cli.reporting.fields import chains


def test_the_border_of_one_cell_is_one_closed_line():
    labels = np.zeros((3, 3), int)
    labels[1, 1] = 1
    (line,) = chains(labels)
    assert line[0] == line[-1]
    assert set(line) == {(0.5, 0.5), (1.5, 0.5), (1.5, 1.5), (0.5, 1.5)}


def test_borders_hold_every_edge_between_clusters_once():
    labels = np.random.default_rng(0).integers(0, 3, (12, 9))
    edges = [frozenset(edge) for line in chains(labels) for edge in pairwise(line)]
    upright = [
        ((c + 0.5, r - 0.5), (c + 0.5, r + 0.5)) for r, c in zip(*np.nonzero(np.diff(labels, axis=1)), strict=True)
    ]
    level = [
        ((c - 0.5, r + 0.5), (c + 0.5, r + 0.5)) for r, c in zip(*np.nonzero(np.diff(labels, axis=0)), strict=True)
    ]
    assert len(edges) == len(set(edges))
    assert set(edges) == {frozenset(edge) for edge in (*upright, *level)}


def test_one_cluster_has_no_border():
    assert chains(np.ones((4, 4), int)) == []
