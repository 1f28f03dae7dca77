"""Cluster: the paper's Table 1 on simulated images, the time of each search, and memory that does not grow.

``table_1``: mean coverage error over places of all five methods of Brunekreef et al. 2023, for few and for many
images. The images have four rings whose scores are distributed alike; with few images the shapes that know that win,
with many the voxelwise thresholds catch up. ``large`` runs a fit on generated images that are never kept.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.labels import Channel, LabelMap, LabelSpace
from segcal_cli.core.volume import Grid, Stored, Volume
from segcal_cli.kandinsky.annuli import Field, fit_annuli
from segcal_cli.kandinsky.arrays import arrays_on
from segcal_cli.kandinsky.coverage_rows import CoverageRows
from segcal_cli.kandinsky.ellipsoids import Family
from segcal_cli.kandinsky.features import Features, smoothed
from segcal_cli.kandinsky.frames import Frame
from segcal_cli.kandinsky.kmeans import kmeans
from segcal_cli.kandinsky.learning import Learner
from segcal_cli.kandinsky.measuring import CoverageMeasurement
from segcal_cli.kandinsky.model import Model, regions_of
from segcal_cli.kandinsky.objectives import distances
from segcal_cli.kandinsky.passes import CalibrationPass, MapPass
from segcal_cli.kandinsky.places import Placing, choose_placing
from segcal_cli.kandinsky.regions import Regions
from segcal_cli.kandinsky.spec import MapSpec
from segcal_cli.kandinsky.star import fit_star

SPACE = LabelSpace((Channel("background", frozenset([0])), Channel("organ", frozenset([1]))), "softmax")

METHODS = ("pixel", "image", "kmeans", "annuli", "star")
NUMBERS = (10, 20, 40, 160, 640)
TEST_IMAGES = 600

LARGE = (240, 320)
GAIN = np.array([2.6, 1.8, 1.0, 0.3])


def ring_map(shape: tuple[int, int]) -> np.ndarray:
    """int "row column": four rings about a point off the middle."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    scale = shape[0] / 24
    distance = np.hypot(rows - 11 * scale, columns - 18 * scale)
    return np.digitize(distance, np.array((5, 9, 13)) * scale)


def image(seed: int, number: int, rings: np.ndarray) -> Case:
    """One image of one patient."""
    rng = np.random.default_rng([seed, number])
    label = (rng.random(rings.shape, np.float32) < 0.45).astype(np.uint8)
    margin = GAIN[rings] + 0.3 * rng.standard_normal()
    z = (2 * label.astype(np.float32) - 1) * margin + 0.9 * rng.standard_normal(rings.shape, np.float32)
    p = (1 / (1 + np.exp(-z))).astype(np.float32)
    grid = Grid((1, *rings.shape)[-3:])  # type: ignore[arg-type]
    volume = Volume(np.stack((1 - p, p)).reshape(2, *grid.shape), grid, "probabilities", Stored("float32"))
    labels = LabelMap(label.reshape(grid.shape), np.eye(2, dtype=bool))
    return Case(f"i{number:06}", f"i{number:06}", SPACE, volume, labels)


def images(seed: int, n: int, rings: np.ndarray) -> Iterator[Case]:
    return (image(seed, number, rings) for number in range(n))


def passed(estimator, cases):  # type: ignore[no-untyped-def]
    """What an estimator comes to, case after case as the engine does it."""
    state = estimator.empty()
    for case in cases:
        state = estimator.merge(state, estimator.update(estimator.empty(), case))
    return estimator.finish(state)


def fit(method: str, seed: int, n: int, rings: np.ndarray, placing: Placing) -> Model:
    """The paper's way: everyone makes the map and calibrates, voxels pooled."""
    spec = MapSpec(
        method=method,
        k=4 if method in ("kmeans", "annuli", "star") else None,
        roughness=1e-4 if method == "star" else None,
    )  # type: ignore[arg-type]
    channels = spec.learned_channels(SPACE)
    maps = {}
    if spec.learns:
        histograms = passed(MapPass(SPACE, channels, "ecdf", placing), images(seed, n, rings))
        maps = Learner(spec, channels, SPACE.names, placing).learn(histograms)
    regions = regions_of(spec, SPACE, placing, maps)
    groups = {f"i{number:06}": 1 for number in range(n)}
    pools = passed(CalibrationPass(SPACE, regions, groups, 10**9), images(seed, n, rings))
    return Model(SPACE, regions, *pools, "voxel")


def table_1(folder: Path, runs: int = 1) -> str:
    """Mean [5 %, 95 %] coverage error over places, organ, by method and number of images."""
    rings = ring_map((24, 32))
    placing, _ = choose_placing([Frame.of(Grid((1, *rings.shape)))], None, None, has_roi=False)
    test = list(images(1, TEST_IMAGES, rings))
    lines = ["### Coverage error over places, by method and number of images (voxel weighting, maps reused)", ""]
    lines += ["| method | " + " | ".join(f"N = {n}" for n in NUMBERS) + " |", "|---|" + "---|" * len(NUMBERS)]
    floor = 0.0
    for method in METHODS:
        cells = []
        for n in NUMBERS:
            found = []
            for repeat in range(runs):
                model = fit(method, 100 + repeat, n, rings, placing)
                counting = CoverageMeasurement(model, (0.1,), placing)
                row = CoverageRows(counting, passed(counting, test)).errors()[1]
                found.append([row["ce20_mean"], row["ce20_q05"], row["ce20_q95"]])
                floor = row["floor_mean"]
            mean, low, high = np.mean(found, axis=0)
            cells.append(f"{mean:.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines.append(f"\nNoise floor of exact coverage on the {TEST_IMAGES} test images: {floor:.3f}.\n")
    return "\n".join(lines)


def timed(function, *arguments):  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def speed(folder: Path, runs: int = 3) -> str:
    """Seconds of each search on one core, best of the runs, beside one evaluation of the authors' objective."""
    rng = np.random.default_rng(0)
    rows = []
    for name, shape, spacing, radii in (
        ("ellipse, 240 x 320", LARGE, (1.0, 1.0), (45, 80, 120)),
        ("ellipsoid, 60 x 60 x 39", (60, 60, 39), (4.0, 4.0, 4.0), (35, 60, 85)),
    ):
        field = Field(shape, spacing)
        distance = np.linalg.norm((field.places - np.array(field.middle) * 1.1) * 0.95, axis=1)
        shell = np.digitize(distance, radii)
        given = Features(0.1 * shell[:, None] + 0.4 * rng.standard_normal((len(shell), 9)), np.ones(len(shell)))
        family = Family(field.dimension, "ellipse" if field.dimension == 2 else "ellipsoid")
        found, seconds = min((timed(fit_annuli, given, field, family, 4) for _ in range(runs)), key=lambda one: one[1])
        rows.append((f"annuli, {name}, K = 4", seconds))
        rows.append((f"star after it, {name}", min(timed(fit_star, given, field, found)[1] for _ in range(runs))))
        if field.dimension == 2:
            blurred = smoothed(given, shape, (8.0, 8.0))
            rows.append(("k-means, 76,800 cells, K = 4", min(
                timed(kmeans, blurred.values, np.ones(len(shell)), 4, 0)[1] for _ in range(runs)
            )))  # fmt: skip
    sample = rng.standard_normal((4000, 4))
    _, seconds = timed(distances, sample)
    pairs = (LARGE[0] * LARGE[1] / len(sample)) ** 2 / 4
    rows.append(("the authors' objective, one evaluation at 240 x 320 (extrapolated from 4000 cells)", seconds * pairs))
    lines = ["### Searches on one core", "", "| | seconds |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {seconds:.2f} |" for name, seconds in rows)]) + "\n"


def large(method: str, n: int) -> tuple[float, float, float]:
    """(seconds without making the images, seconds, peak MiB) of a fit on n images of 240 x 320 with two classes."""
    rings = ring_map(LARGE)
    placing, _ = choose_placing([Frame.of(Grid((1, *LARGE)))], None, None, has_roi=False)
    start = time.perf_counter()
    for case in images(5, 20, rings):
        assert case.labels is not None
    making = (time.perf_counter() - start) / 20
    start = time.perf_counter()
    n_map = n * 3 // 10 if method == "kmeans" else 0
    spec = MapSpec(method=method)  # type: ignore[arg-type]
    maps = {}
    if n_map:
        histograms = passed(MapPass(SPACE, (1,), "ecdf", placing), images(5, n_map, rings))
        maps = Learner(spec, (1,), SPACE.names, placing).learn(histograms)
    regions = regions_of(spec, SPACE, placing, maps)
    groups = {f"i{number:06}": 1 for number in range(n_map, n)}
    rest = (image(5, number, rings) for number in range(n_map, n))
    passed(CalibrationPass(SPACE, regions, groups, 10**9), rest)
    seconds = time.perf_counter() - start
    return seconds - making * n, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def devices(folder: Path, runs: int = 3) -> str:
    """A GPU beside the CPU: milliseconds per case of both passes, seconds of k-means; best of the runs."""
    import torch

    lines = ["### Passes and k-means on a GPU", ""]
    if not torch.cuda.is_available():
        return "\n".join([*lines, "No GPU here.", ""])
    lines += [f"{torch.cuda.get_device_name()}, one CPU core.", "", "| | cpu | cuda | ratio |", "|---|---|---|---|"]
    for size, n in (((1, *LARGE), 100), ((128, 256, 272), 4)):
        rings = np.broadcast_to(ring_map(size[1:]), size)
        held = list(images(7, n, rings))
        placing, _ = choose_placing([Frame.of(held[0].volume.grid)], None, None, has_roi=False)
        regions = Regions("pixel", (placing.n_cells,) * 2, placing)
        for name, passing in (
            ("map", lambda on, at=placing: MapPass(SPACE, (1,), "ecdf", at, arrays=on)),
            ("pixel", lambda on, at=regions, some=held: CalibrationPass(SPACE, at, ids(some), 10**10, on)),
        ):
            cpu, cuda = (
                min(timed(passed, passing(arrays_on(device)), held)[1] for _ in range(runs)) / n * 1e3
                for device in ("cpu", "cuda")
            )
            what = f"{name} pass, {' x '.join(map(str, size))}, ms per case"
            lines.append(f"| {what} | {cpu:.1f} | {cuda:.2f} | {cpu / cuda:.1f} |")
    for n in (LARGE[0] * LARGE[1], 1 << 20):
        rng = np.random.default_rng(0)
        points = rng.random((n, 9)) + 0.3 * np.digitize(rng.random(n), (0.3, 0.6, 0.8))[:, None]
        cpu, cuda = (
            min(timed(kmeans, points, np.ones(n), 4, 0, arrays_on(device).steps)[1] for _ in range(runs))
            for device in ("cpu", "cuda")
        )
        lines.append(f"| k-means, {n:,} cells, K = 4, s | {cpu:.2f} | {cuda:.3f} | {cpu / cuda:.1f} |")
    return "\n".join(lines) + "\n"


def ids(cases: list[Case]) -> dict[str, int]:
    """Patient -> number of cases."""
    return {case.group: 1 for case in cases}


def memory(folder: Path, runs: int = 1) -> str:
    """Peak memory and time of whole fits, each in a process of its own."""
    from processes import once, python

    lines = [
        "### Fits on generated images of 2 x 240 x 320",
        "",
        "| method | images | cpu s | peak MiB |",
        "|---|---|---|---|",
    ]
    here = Path(__file__).parent
    for method in ("kmeans", "pixel"):
        for n in (2000, 20000):
            path = f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]"
            figures = once(python(f"{path}; import clusters; clusters.large({method!r}, {n})"))
            lines.append(f"| {method} | {n} | {figures.cpu_s:.0f} | {figures.memory_mib:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(large(sys.argv[1], int(sys.argv[2])))
