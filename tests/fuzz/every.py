"""Every scene that there is."""

from __future__ import annotations

from tests.fuzz import beside, scenes

SCENES = (*scenes.SCENES, *beside.SCENES)


def scene_of(name: str) -> scenes.Scene:
    """Raises StopIteration for a name that is none."""
    return next(scene for scene in SCENES if scene.name == name)
