"""Options of `cluster fit` and `cluster apply`."""

from __future__ import annotations

from segcal_cli.cli.words.spelling import CLUSTERS, OUTPUT, SETS, Words, plain
from segcal_cli.workflows import requests

WORDS: dict[type, dict[str, Words]] = {
    requests.ClusterFitOptions: {
        "method": plain(
            "--method",
            "annuli (default), image, pixel, kmeans, star, grid, atlas or boundary.",
            CLUSTERS,
            "NAME",
        ),
        "shape": plain(
            "--shape", "Of annuli and star. Default: ellipse in 2-D, ellipsoid in 3-D; circle is a sphere.", CLUSTERS
        ),
        "free_axes": Words(("--free-axes",), "Ellipsoids may be rotated.", CLUSTERS),
        "k": plain(
            "--k", "At most this many clusters (default 4), or auto: chosen on held-out patients.", CLUSTERS, "N|auto"
        ),
        "weighting": plain(
            "--weighting",
            "patient: every patient weighs the same, with a guarantee; voxel: the paper's pooling, without one.",
            CLUSTERS,
        ),
        "alpha": plain("--alpha", "The level stored as default; any other can be chosen later.", CLUSTERS, "A"),
        "split": plain(
            "--split",
            "Share of the patients that make a learned map (default 0.3), or a CSV with the column case that lists "
            "their cases. The others calibrate.",
            CLUSTERS,
            "FRACTION|CSV",
        ),
        "reuse": Words(("--reuse",), "Everyone makes the map and calibrates: no guarantee.", CLUSTERS),
        "map": plain("--map", "Use the map of another cluster artifact; everyone calibrates.", CLUSTERS, "ARTIFACT"),
        "grid": plain("--grid", "Blocks along x, y (and z) of --method grid, such as 4x4x2.", CLUSTERS, "BXxBY[xBZ]"),
        "atlas": plain(
            "--atlas",
            "Region numbers of --method atlas: one label volume for all, or a folder with one per case. Not made from "
            "the truth.",
            CLUSTERS,
            "PATH",
        ),
        "edges": plain(
            "--edges", "Distances in mm from the predicted border (inside negative), such as -5,0,5.", CLUSTERS, "LIST"
        ),
        "features": plain("--features", "What describes a place: ecdf (default), or the paper's quantiles.", CLUSTERS),
        "levels": plain("--levels", "Levels of --features quantiles. Default .5,.6,.7,.8,.9.", CLUSTERS, "LIST"),
        "objective": plain("--objective", "What the search minimises: sse (default), energy, paper.", CLUSTERS),
        "optimizer": plain(
            "--optimizer", "How annuli are found: dp (default, exact radii), or the paper's de.", CLUSTERS
        ),
        "smooth": plain(
            "--smooth", "Width of the smoothing before k-means. Default 2.5 % of the longest side.", CLUSTERS, "MM"
        ),
        "min_count": plain(
            "--min-count", "Voxels that a cell needs for k-means (default 5); others follow the nearest.", CLUSTERS, "N"
        ),
        "order": plain("--order", "Of the star's curves. Default 4 in 2-D, 2 in 3-D.", CLUSTERS, "L"),
        "roughness": plain(
            "--roughness",
            "Penalty of the star's curves, or auto (default): chosen on held-out patients.",
            CLUSTERS,
            "X|auto",
        ),
        "coords": plain(
            "--coords",
            "How a map is laid over scans: index (default where all agree), unit (default otherwise), mm, roi, object.",
            CLUSTERS,
        ),
        "block": plain("--block", "Edge of a map's cells in voxels. Default: such that 2^20 suffice.", CLUSTERS, "B"),
        "shared_map": Words(("--shared-map",), "One map for all classes, from the features of all.", CLUSTERS),
        "cluster_background": Words(("--cluster-background",), "Learned maps cluster the background too.", CLUSTERS),
        "only": plain(
            "--only", "Cluster these classes; the others are calibrated over the whole image.", CLUSTERS, "CLASS,.."
        ),
        "memory": plain("--memory", "What scores may take; beyond it they become coarser.", CLUSTERS, "SIZE"),
        "allow_overlap": Words(
            ("--allow-overlap",), "Patients may make the map and calibrate on it; recorded, no guarantee.", CLUSTERS
        ),
        "seed": plain("--seed", "Seed of the split and of the searches.", CLUSTERS, "N"),
    },
    requests.ClusterApplyOptions: {
        "alpha": plain(
            "--alpha", "Another level than the stored one, for all classes or one. Repeatable.", SETS, "A|CLASS=A"
        ),
        "empty": plain(
            "--empty",
            "An empty set gets the most probable class (top1, default of exclusive classes), or stays empty.",
            SETS,
        ),
        "emit": plain("--emit", "What is written: sets, size, pvalue, clusters, thresholds.", OUTPUT, "LIST"),
        "atlas": plain("--atlas", "Atlases of these cases, where the fit had a folder.", SETS, "FOLDER"),
        "roi": plain("--roi", "Masks of the voxels that count (non-zero = keep), named as the cases.", SETS, "FOLDER"),
    },
}
