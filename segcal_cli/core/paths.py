"""Where a path leads: links followed, and what is no end of them left as it is."""

from __future__ import annotations

import os
from pathlib import Path


def real_path(path: Path) -> Path:
    """The path without links, also of what is not there. Links that go round and round stay in it; ``Path.resolve``
    would raise RuntimeError for them, in Python before 3.13.
    """
    return Path(os.path.realpath(path))
