"""Settings that hold for every test."""

import os

import pytest
from hypothesis import settings

from segcal_cli.cli.entry import THREAD_VARIABLES

# As the program does, before anything imports numpy: threads of BLAS that wait for each other double the time.
for variable in THREAD_VARIABLES:
    os.environ.setdefault(variable, "1")

# Examples are the same on every run, and a busy machine is no failure.
settings.register_profile("segcal", deadline=None, derandomize=True)
settings.load_profile("segcal")


def pytest_collection_modifyitems(items):
    """Tests marked ``gpu`` are skipped where torch finds no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
