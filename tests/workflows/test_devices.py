"""Where work with a GPU path runs."""

import subprocess
import sys

import pytest

from segcal_cli.workflows import devices
from segcal_cli.workflows.devices import DeviceUnused, NoCuda, device_of
from segcal_cli.workflows.requests import DeviceOptions


@pytest.fixture
def cuda(monkeypatch):
    """Sets what the machine seems to have: (driver, GPU that torch finds)."""
    torch = pytest.importorskip("torch")

    def have(driver, gpu):
        monkeypatch.setattr(devices, "_driver_there", lambda: driver)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)

    return have


@pytest.mark.parametrize(("asked", "driver", "gpu", "device"), [
    ("auto", True, True, "cuda"), ("auto", True, False, "cpu"), ("auto", False, False, "cpu"),
    ("cpu", True, True, "cpu"), ("cuda", True, True, "cuda"),
])  # fmt: skip
def test_auto_takes_a_gpu_where_there_is_one(cuda, asked, driver, gpu, device):
    cuda(driver, gpu)
    assert device_of(DeviceOptions(asked)) == device


def test_a_gpu_that_is_not_there_is_refused(cuda):
    cuda(False, False)
    with pytest.raises(NoCuda) as error:
        device_of(DeviceOptions("cuda"))
    assert str(error.value) == "--device cuda: torch finds no CUDA GPU here; allowed are auto and cpu"


def test_a_gpu_for_work_without_a_gpu_path_is_refused_and_auto_is_not(cuda):
    cuda(True, True)
    with pytest.raises(DeviceUnused) as error:
        device_of(DeviceOptions("cuda"), cpu_only="method beta")
    assert str(error.value) == "--device cuda: method beta runs on the CPU only; allowed are auto and cpu"
    assert device_of(DeviceOptions("auto"), cpu_only="method beta") == "cpu"


@pytest.mark.parametrize("call", [
    "device_of(DeviceOptions('cpu'))", "device_of(DeviceOptions('auto'), cpu_only='method beta')",
    "setattr(devices, '_driver_there', lambda: False) or device_of(DeviceOptions('auto'))",
])  # fmt: skip
def test_torch_is_not_imported_where_the_cpu_is_certain(call):
    code = (
        "import sys; from segcal_cli.workflows import devices; from segcal_cli.workflows.devices import device_of; "
        "from segcal_cli.workflows.requests import DeviceOptions; "
        f"assert {call} == 'cpu'; print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
