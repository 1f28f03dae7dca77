"""Pictures of cluster artifacts: their maps, their coverage at every level, and where they err."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segcal_cli.core.errors import UsageError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.codes import INFINITE, smallest_probability
from segcal_cli.kandinsky.coverage_rows import LEVEL, RESAMPLES, SEED, CoverageRows
from segcal_cli.kandinsky.measuring import GREY_STEPS
from segcal_cli.kandinsky.text import cluster_name, guarantee
from segcal_cli.metrics.intervals import percentile, resample
from segcal_cli.reporting import fields
from segcal_cli.reporting.fields import CoverageLine, Outline, Plane, Violin
from segcal_cli.reporting.pictures import Drawing, Picture
from segcal_cli.reporting.style import Words, look
from segcal_cli.workflows.cluster_artifacts import LoadedCluster

PLOTS = ("cluster-map", "coverage-diagram", "coverage-violin", "difference-map", "error-map")

SECTIONS = {
    "cluster-map": (
        "Cluster maps",
        "Voxels of one colour share a threshold. The grey image below is the mean probability of the class. Each entry "
        "of the legend says how large the cluster is, and what the calibration patients gave it.",
    ),
    "coverage-diagram": (
        "Coverage of prediction sets",
        "For every level that can be asked for, the share of the class that the sets hold. Points on the diagonal are "
        "exact; below it, sets hold less than they promise. The band resamples patients.",
    ),
    "coverage-violin": (
        "Coverage error over places",
        "Each violin shows how the coverage error is spread over the places of the image; the long bar is the mean, "
        "and the short ones hold 90 % of the places. Even exact coverage shows the noise floor, which depends on n.",
    ),
    "difference-map": (
        "Where clusters help",
        "Blue: the coverage error is smaller with the clusters than with one threshold for the whole image; red: "
        "larger. Pale where the difference is less than noise makes at that n.",
    ),
    "error-map": (
        "Coverage error place by place",
        "Bright places are where the coverage misses its level most. Grey: too few positives to tell.",
    ),
}
"""Plot -> title and reading of its section in the report."""

LINES = 6
"""Clusters with a line of their own in a coverage diagram."""

ON_THREE_CASES = 3
"""Maps that belong to the scan are shown on this many cases, those of the artifact's own field on none."""

SHOWN_CLUSTERS = 24
"""More clusters than this have no legend that could be read, so no picture."""


ROOM = 0.1
"""Around the places that are known, as a share of their extent, in maps of places."""


class BadCell(UsageError):
    """A place that the map does not have."""

    template = "--cells {0} is not allowed; {1}"


@dataclass(frozen=True)
class Shown:
    """One artifact and what measuring it came to."""

    name: str
    loaded: LoadedCluster
    rows: CoverageRows
    in_sample: bool = False

    @property
    def label(self) -> str:
        return self.name + ("†" if self.in_sample else "")


def draw(shown: Sequence[Shown], plots: Sequence[str], cells: Sequence[str]) -> Iterator[Picture]:
    """The pictures asked for, by plot. cells: places with lines of their own, as x,y[,z]. Raises BadCell."""
    made = {
        "cluster-map": lambda: (one for each in shown for one in _maps(each, shown)),
        "coverage-diagram": lambda: (one for each in shown for one in _diagrams(each, cells)),
        "coverage-violin": lambda: _violins(shown),
        "difference-map": lambda: (one for each in shown for one in _differences(each)),
        "error-map": lambda: (one for each in shown for one in _errors(each)),
    }
    for plot in PLOTS:
        if plot in plots:
            yield from made[plot]()


def pictured_cases(loaded: LoadedCluster, cases: Sequence[str]) -> frozenset[str]:
    """Cases of which a map needs a snapshot: none where it has a field of its own."""
    regions = loaded.model.regions
    if regions.method in ("image", "pixel") or (
        regions.placing is not None and regions.placing.coords != "object" and regions.cells
    ):
        return frozenset()
    own = regions.method == "boundary" or loaded.artifact.header.results["atlas"] == "folder" or bool(regions.cells)
    return frozenset(sorted(cases, key=str.encode)[: ON_THREE_CASES if own else 1])


def _picture(
    plot: str, name: str, one: Shown | None, words: Words, drawing: Drawing, case: str | None = None
) -> Picture:
    return Picture(plot, name, "" if one is None else one.name, case, words.title, words.caption, drawing)


def _caption(shown: Sequence[Shown], *sentences: str) -> str:
    """The sentences, what was counted, and what each artifact that is shown promises."""
    rows = shown[0].rows
    patients = f"{count_text(len(rows.found.cases), 'case')} of {count_text(len(rows.groups), 'patient')}."
    promises: dict[str, list[str]] = {}
    for one in shown:
        promises.setdefault(_promise(one), []).append(one.name)
    said = [promise if len(promises) == 1 else f"{', '.join(names)}: {promise}" for promise, names in promises.items()]
    mark = ["† fitted on some of these cases: in-sample."] if any(one.in_sample for one in shown) else []
    return " ".join([*sentences, patients, *said, *mark])


def _promise(one: Shown) -> str:
    return guarantee(one.loaded.model, one.rows.measurement.alphas[0], one.loaded.circumstances)


# Maps.


def _maps(one: Shown, every: Sequence[Shown]) -> Iterator[Picture]:
    model = one.loaded.model
    alpha = one.rows.measurement.alphas[0]
    for channel, name in enumerate(model.space.names):
        k = model.regions.sizes[channel]
        if not 1 < k <= SHOWN_CLUSTERS:
            continue
        legend = _legend(one, channel, alpha)
        unit = one.loaded.artifact.header.results["unit"]
        far = f"Clusters: {unit} from the border of the predicted {name}, negative inside. "
        far = far if model.regions.method == "boundary" else ""
        cells = model.regions.cells.get(channel)
        if cells is not None and not one.rows.found.snapshots:
            outlines = _outlines(one, every, channel)
            planes = _planes(one, cells.astype(np.float64), channel, _mean_probability(one, channel))
            words = Words(
                f"Clusters of {name}: {one.label}",
                _caption(
                    [one], f"Grey: mean probability of {name} over the evaluated cases. Thresholds at alpha {alpha:g}."
                ),
            )
            yield _picture("cluster-map", name, one, words, fields.cluster_map(planes, legend, words, outlines))
        for case, shot in one.rows.found.snapshots.items():
            clusters = shot.clusters[channel].astype(np.float64)
            grey = shot.probability[channel] / GREY_STEPS
            planes = _sections(clusters, shot.spacing, shot.has_mm, _brightest(grey), grey)
            words = Words(
                f"Clusters of {name}: {one.label}, {case}",
                _caption([one], f"Grey: probability of {name} in this scan. {far}Thresholds at alpha {alpha:g}."),
            )
            yield _picture("cluster-map", name, one, words, fields.cluster_map(planes, legend, words), case)


def _legend(one: Shown, channel: int, alpha: float) -> list[str]:
    model = one.loaded.model
    groups, voxels = model.pools.n_groups, model.pools.n_voxels
    limits = model.thresholds(channel, one.rows.measurement.alpha_of(alpha, channel))
    cells = model.regions.cells.get(channel)
    entries = []
    for cluster in range(model.regions.sizes[channel]):
        slot = model.slots(channel).start + cluster
        code = int(limits[cluster])
        area = "" if cells is None else f"{100 * float((cells == cluster).mean()):.1f} % of the field, "
        limit = "in every set" if code == INFINITE else f"p >= {smallest_probability(code, model.shift):.3g}"
        entries.append(
            f"{cluster_name(model, channel, cluster)}: {area}{count_text(groups[slot], 'patient')}, "
            f"{count_text(voxels[slot], 'voxel')}, {limit}"
        )
    return entries


def _outlines(one: Shown, every: Sequence[Shown], channel: int) -> list[Outline]:
    """Borders of annuli and stars over a k-means map of the same field."""
    regions = one.loaded.model.regions
    if regions.method != "kmeans":
        return []
    found = []
    for other in every:
        theirs = other.loaded.model.regions
        cells = theirs.cells.get(channel)
        if theirs.method in ("annuli", "star") and theirs.placing == regions.placing and cells is not None:
            planes = _planes(one, cells.astype(np.float64), channel, None)
            found.append(Outline(other.label, tuple(plane.values for plane in planes)))
    return found


def _mean_probability(one: Shown, channel: int) -> np.ndarray | None:
    """float64, canonical cells: mean probability of a class, NaN where no voxel lies."""
    run, placing = one.rows.found.grey, one.rows.measurement.placing
    low, high = np.searchsorted(run.keys, (channel * placing.n_cells, (channel + 1) * placing.n_cells))
    if low == high or placing != one.loaded.model.regions.placing:
        return None
    mean = np.full(placing.n_cells, np.nan)
    mean[run.keys[low:high] - channel * placing.n_cells] = run.columns[1, low:high] / run.columns[0, low:high]
    return (mean / GREY_STEPS).reshape(placing.cells)


def _planes(
    one: Shown,
    cells: np.ndarray,
    channel: int,
    grey: np.ndarray | None,
) -> list[Plane]:
    """Sections of an array of the measurement's cells, through the centre of the map of a class."""
    placing = one.rows.measurement.placing
    spacing = tuple(edge * placing.block for edge in placing.spacing)
    known = one.loaded.model.described.get(channel, {})
    through = [n // 2 for n in placing.cells]
    own = one.loaded.model.regions.placing
    if "centre" in known and placing == own:
        field = placing.field
        for axis, at, edge in zip(placing.long_axes, known["centre"], field.spacing, strict=True):
            through[axis] = int(np.clip(round(at / edge), 0, placing.cells[axis] - 1))
    has_mm = one.loaded.artifact.header.results["unit"] == "mm"
    return _sections(cells, spacing, has_mm, through, grey)  # type: ignore[arg-type]


def _brightest(grey: np.ndarray) -> list[int]:
    """The middle of where a class is probable, as indices."""
    weight = grey.astype(np.float64) ** 2
    total = weight.sum()
    if not total:
        return [n // 2 for n in grey.shape]
    axes = [weight.sum(axis=tuple(o for o in range(3) if o != axis)) for axis in range(3)]
    return [round(float((profile * np.arange(len(profile))).sum() / total)) for profile in axes]


def _sections(
    array: np.ndarray,
    spacing: tuple[float, float, float],
    has_mm: bool,
    through: Sequence[int],
    grey: np.ndarray | None = None,
    faded: np.ndarray | None = None,
    box: Sequence[tuple[int, int]] | None = None,
) -> list[Plane]:
    """An image as it is; a volume in three planes. Canonical "z y x". box: half-open ranges that are shown, or all."""
    letters = {0: ("L", "R", "P", "A"), 1: ("L", "R", "I", "S"), 2: ("P", "A", "I", "S")}
    names = {0: "axial", 1: "coronal", 2: "sagittal"}
    flat = [axis for axis in range(3) if array.shape[axis] == 1]
    cut = flat[:1] or [0, 1, 2]
    made = []
    for axis in cut:
        rows, columns = (other for other in range(3) if other != axis)
        at = through[axis] if not flat else 0

        def section(whole: np.ndarray | None, axis: int = axis, at: int = at) -> np.ndarray | None:
            return None if whole is None else np.take(whole, at, axis=axis)

        values = section(array)
        assert values is not None, "there is an array"
        window = None if box is None else (box[rows], box[columns])
        height, width = values.shape if window is None else (high - low for low, high in window)
        size = (height * spacing[rows], width * spacing[columns])
        title = "" if flat else f"{names[axis]}, {'zyx'[axis]} = {at}"
        made.append(
            Plane(values, size, letters[axis] if has_mm else None, title, section(grey), section(faded), window)
        )
    return made


# Coverage.


def _diagrams(one: Shown, cells: Sequence[str]) -> Iterator[Picture]:
    rows = one.rows
    drawn = resample(len(rows.groups), RESAMPLES, SEED)
    at = {key: index for index, key in enumerate(rows.measurement.rows)}
    for channel, name in enumerate(one.loaded.model.space.names):
        whole = at[channel, None]
        if not rows.n[:, whole].sum():
            continue
        lines = [_line(one, whole, "whole image", 0, drawn)]
        shown = [key for key in at if key[0] == channel and key[1] is not None and rows.n[:, at[key]].sum()]
        for number, key in enumerate(shown[:LINES], start=1):
            assert key[1] is not None, "clusters only"
            label = f"cluster {cluster_name(one.loaded.model, channel, key[1])}"
            lines.append(_line(one, at[key], label, number, None))
        lines += [_cell_line(one, channel, text, len(lines) + i) for i, text in enumerate(cells)]
        more = f" The first {LINES} of {len(shown)} clusters." if len(shown) > LINES else ""
        words = Words(
            f"Coverage of {name}: {one.label}",
            _caption(
                [one],
                "Mean over patients of the share that the set holds, before empty sets are filled. Band: 95 %, "
                f"patients resampled.{more}",
            ),
        )
        yield _picture("coverage-diagram", name, one, words, fields.coverage_diagram(lines, words))


def _line(one: Shown, row: int, name: str, number: int, drawn: np.ndarray | None) -> CoverageLine:
    n = one.rows.n[:, row]
    known = n > 0
    covered = np.cumsum(one.rows.level_counts[known, row], axis=1) / n[known, None]
    low = high = None
    if drawn is not None and known.sum() > 1:
        weights = drawn[:, known].astype(np.float64)
        means = np.einsum("rg,gm->rm", weights, covered) / np.maximum(weights.sum(axis=1), 1)[:, None]
        low, high = percentile(means, LEVEL)
    count = f"{count_text(int(known.sum()), 'patient')}, {count_text(int(n.sum()), 'voxel')}"
    # Level by level, as the table adds up: another order of the sum would be another last digit.
    coverage = np.array([np.ascontiguousarray(column).mean() for column in covered.T])
    return CoverageLine(name, coverage, look(number), count, low, high)


def _cell_line(one: Shown, channel: int, text: str, number: int) -> CoverageLine:
    """The coverage of one voxel's cell. Raises BadCell."""
    placing = one.rows.measurement.placing
    try:
        given = [int(part) for part in text.split(",")]
    except ValueError:
        raise BadCell(text, "give x,y or x,y,z") from None
    x, y, z = (*given, 0)[:3] if len(given) in (2, 3) else (-1, -1, -1)
    if not all(0 <= at < n for at, n in zip((z, y, x), placing.shape, strict=True)):
        raise BadCell(text, f"the field is {' x '.join(str(n) for n in reversed(placing.shape))} voxels, from 0")
    cell = np.ravel_multi_index(tuple(at // placing.block for at in (z, y, x)), placing.cells)
    levels = one.rows.cell_levels(channel)[cell]
    n = int(levels.sum())
    coverage = np.cumsum(levels) / max(n, 1)
    low = high = None
    if n:
        from scipy.stats import binom

        exact = np.arange(1, levels.size + 1) / levels.size
        low, high = binom.ppf(0.025, n, exact) / n, binom.ppf(0.975, n, exact) / n
    return CoverageLine(f"place {text}", coverage, look(number), f"n = {n}, band of exact coverage", low, high)


def _violins(shown: Sequence[Shown]) -> Iterator[Picture]:
    if not shown:
        return
    first = shown[0]
    for channel, name in enumerate(first.loaded.model.space.names):
        violins = []
        for number, one in enumerate(shown):
            own = one.rows.places(channel)
            enough = own.n >= one.rows.min_positives
            if number == 0:
                image = one.rows.places(channel, imagewise=True)
                note = f"{int(enough.sum())} of {int((own.n > 0).sum())}"
                violins.append(Violin("imagewise", image.error[enough], None, note))
                violins.append(Violin("noise floor", own.floor[enough], None, note))
            note = f"{int(enough.sum())} of {int((own.n > 0).sum())}"
            violins.append(Violin(one.label, own.error[enough], look(number), note))
        if not any(one.values.size for one in violins):
            continue
        words = Words(
            f"Coverage error over places: {name}",
            _caption(
                shown,
                f"Below each name: places with {first.rows.min_positives} or more positives, of those with one. Long "
                f"bar: mean; short bars: 5 and 95 %. Imagewise: one cluster, the same patients as {first.label}. "
                "Values are comparable at equal n only.",
            ),
        )
        yield _picture("coverage-violin", name, None, words, fields.coverage_violin(violins, words))


def _differences(one: Shown) -> Iterator[Picture]:
    for channel, name in enumerate(one.loaded.model.space.names):
        own, image = one.rows.places(channel), one.rows.places(channel, imagewise=True)
        enough = own.n >= one.rows.min_positives
        if one.loaded.model.regions.sizes[channel] == 1 or not enough.any():
            continue
        gap = np.where(enough, image.error - own.error, np.nan)
        with np.errstate(invalid="ignore"):
            faded = np.abs(gap) < own.floor
        yield _field("difference-map", one, channel, name, gap, faded)


def _errors(one: Shown) -> Iterator[Picture]:
    for channel, name in enumerate(one.loaded.model.space.names):
        own = one.rows.places(channel)
        enough = own.n >= one.rows.min_positives
        if enough.any():
            yield _field("error-map", one, channel, name, np.where(enough, own.error, np.nan), None)


def _where_known(known: np.ndarray) -> tuple[list[int], list[tuple[int, int]]]:
    """Per axis the section with the most places that are known, and the range that holds all, with some room."""
    through, box = [], []
    for axis, n in enumerate(known.shape):
        profile = known.sum(axis=tuple(other for other in range(3) if other != axis))
        used = np.flatnonzero(profile)
        room = max(1, round(ROOM * (used[-1] + 1 - used[0]))) if n > 1 else 0
        through.append(int(profile.argmax()))
        box.append((max(0, int(used[0]) - room), min(n, int(used[-1]) + 1 + room)))
    return through, box


def _field(plot: str, one: Shown, channel: int, name: str, values: np.ndarray, faded: np.ndarray | None) -> Picture:
    cells = one.rows.measurement.placing.cells
    shaped = None if faded is None else faded.reshape(cells)
    placing = one.rows.measurement.placing
    spacing = tuple(edge * placing.block for edge in placing.spacing)
    through, box = _where_known(np.isfinite(values).reshape(cells))
    has_mm = one.loaded.artifact.header.results["unit"] == "mm"
    planes = _sections(values.reshape(cells), spacing, has_mm, through, None, shaped, box)  # type: ignore[arg-type]
    signed = plot == "difference-map"
    left_out = int((np.isnan(values) & (one.rows.places(channel).n > 0)).sum())
    words = Words(
        f"{'Imagewise minus clustered coverage error' if signed else 'Coverage error'} of {name}: {one.label}",
        _caption(
            [one],
            f"Places with {one.rows.min_positives} or more positives; {left_out} with fewer are grey."
            + (" Blue: the clusters are better. Pale: less than noise makes at that n." if signed else ""),
        ),
    )
    label = "imagewise minus clusters" if signed else "coverage error"
    return _picture(plot, name, one, words, fields.value_map(planes, label, words, signed=signed))
