"""Feature maps with known shells, for the shape optimisers; mean of shell k is LEVELS[k], plus normal noise."""

import numpy as np

LEVELS = np.array([[0.2, 0.3, 0.4, 0.6], [0.3, 0.4, 0.5, 0.7], [0.4, 0.5, 0.65, 0.8], [0.5, 0.65, 0.8, 0.95]])

ELLIPSE = {
    "shape": (240, 320),
    "spacing": (1.0, 1.0),
    "centre": (110.0, 170.0),
    "axes": (0.8, 1.25),
    "rot": 0.3,
    "radii": (45, 80, 120),
}
ELLIPSOID = {
    "shape": (60, 60, 39),
    "spacing": (4.0,) * 3,
    "centre": (130.0, 110.0, 82.0),
    "axes": (1.2, 0.9, 0.8),
    "radii": (35, 60, 85),
}
ANISO = {
    "shape": (32, 96, 96),
    "spacing": (2.5, 1.0, 1.0),
    "centre": (37.5, 50.0, 45.0),
    "axes": (1.0, 1.25, 0.8),
    "radii": (14, 24, 36),
}
SPECS = {
    "ellipse_sd01": dict(ELLIPSE, sd=0.1, seed=11),
    "ellipse_sd04": dict(ELLIPSE, sd=0.4, seed=12),
    "ellipse_sd10": dict(ELLIPSE, sd=1.0, seed=13),
    "bean_sd01": dict(ELLIPSE, bean=0.12, sd=0.1, seed=14),
    "bean_sd04": dict(ELLIPSE, bean=0.12, sd=0.4, seed=15),
    "ellipsoid_sd02": dict(ELLIPSOID, sd=0.2, seed=16),
    "ellipsoid_sd10": dict(ELLIPSOID, sd=1.0, seed=17),
    "aniso_sd05": dict(ANISO, sd=0.5, seed=18),
}


def make(name):
    """(features "cell feature", true shell of each cell, shape, spacing)."""
    s = SPECS[name]
    rs = np.random.RandomState(s["seed"])
    axes = [np.arange(n) * d - c for n, d, c in zip(s["shape"], s["spacing"], s["centre"], strict=True)]
    g = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(s["shape"]))
    angle = np.arctan2(g[:, 0], g[:, 1])
    if "rot" in s:
        c, k = np.cos(s["rot"]), np.sin(s["rot"])
        g = g @ np.array([[c, -k], [k, c]])
    r = np.sqrt(((g / np.array(s["axes"])) ** 2).sum(1)) * (1 + s.get("bean", 0.0) * np.cos(3 * angle))
    shell = np.digitize(r, s["radii"])
    return LEVELS[shell] + s["sd"] * rs.standard_normal((len(g), 4)), shell, s["shape"], s["spacing"]


def sse(labels, features):
    """Sum of squares within clusters, per cell."""
    return sum(((features[labels == k] - features[labels == k].mean(0)) ** 2).sum() for k in np.unique(labels)) / len(
        features
    )


def core(sd):
    """48 x 64 cells: a core of radius 6 (113 cells) about (24, 32) with features 0.2 in a field of 0.5."""
    rs = np.random.RandomState(0)
    rows, columns = np.mgrid[0:48, 0:64]
    distance = np.sqrt((24 - rows) ** 2 + (columns - 32) ** 2)
    return np.where(distance <= 6, 0.2, 0.5)[..., None] + sd * rs.standard_normal((48, 64, 4)), distance
