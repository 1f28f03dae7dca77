"""``segcal inspect``."""

from __future__ import annotations

from segcal_cli.cli import exits, options
from segcal_cli.workflows import requests


@options.expanded
def inspect(artifact: options.ArtifactFile, asking: requests.InspectOptions, talking: options.Talking) -> None:
    """Say what an artifact is, what it was fitted on, and what it guarantees."""
    from segcal_cli.workflows import inspect as workflow

    exits.guarded(
        "inspect",
        talking.console(),
        talking.json,
        lambda observer: workflow.run(artifact, asking, talking.verbose > 0, observer),
    )
