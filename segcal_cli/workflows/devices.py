"""Devices: whether the array work that has a GPU path runs on one.

Results do not depend on the device beyond stated tolerances, so ``auto`` may choose. Importing torch takes seconds, and
most machines have no GPU; therefore ``auto`` first looks for a driver, and torch is imported only if there is one.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Literal

from segcal_cli.core.errors import UsageError
from segcal_cli.workflows.requests import DeviceOptions

Device = Literal["cpu", "cuda"]

CUDA_DRIVERS = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
"""Libraries of the CUDA driver, which torch does not bring along."""

ROCM_DEVICE = Path("/dev/kfd")
"""Where an AMD GPU shows; torch calls it ``cuda`` too."""


class NoCuda(UsageError):
    """A GPU that this machine does not have."""

    template = "--device {0}: torch finds no CUDA GPU here; allowed are auto and cpu"


class DeviceUnused(UsageError):
    """A GPU for work that has no GPU path."""

    template = "--device {0}: {1} runs on the CPU only; allowed are auto and cpu"


def device_of(asked: DeviceOptions, *, cpu_only: str | None = None) -> Device:
    """The device to run on.

    cpu_only: what is to run, if it has no GPU path, as a subject ("method beta"); then torch is never imported. Raises
    NoCuda, DeviceUnused.
    """
    if cpu_only is not None:
        if asked.device == "cuda":
            raise DeviceUnused(asked.device, cpu_only)
        return "cpu"
    if asked.device == "cpu" or (asked.device == "auto" and not _driver_there()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked.device == "cuda":
        raise NoCuda(asked.device)
    return "cpu"


def _driver_there() -> bool:
    for name in CUDA_DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return ROCM_DEVICE.exists()
