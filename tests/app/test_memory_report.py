"""How full the memory is: of the CPU always, of accelerators once torch is there."""

import subprocess
import sys

import pytest
import torch

import comfy.model_management
from app.memory_report import memory_report
from comfy import ram
from tests.fakes.server_process import ROOT

FIELDS = ["device", "total", "free", "allocated", "reserved", "peak"]


def test_the_cpu_tells_what_the_process_takes(monkeypatch):
    (host,) = [one for one in memory_report() if one["device"] == "cpu"]
    assert list(host) == FIELDS and host["total"] == ram.read_ram().total
    assert 0 < host["allocated"] <= host["peak"] < host["total"] and 0 < host["free"] <= host["total"]


def test_the_question_loads_no_torch():
    code = ("import sys; from app.memory_report import memory_report\n"
            "print([one['device'] for one in memory_report()], 'torch' in sys.modules)")
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['cpu'] False"


@pytest.mark.slow
def test_the_question_bears_that_another_thread_is_importing_torch():
    code = ("import importlib, threading; from app.memory_report import memory_report\n"
            "loading = threading.Thread(target=importlib.import_module, args=['comfy.model_management'])\n"
            "loading.start()\n"
            "while loading.is_alive(): memory_report()\n"
            "print(memory_report()[-1]['device'])")
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout.strip()) == (0, "cpu"), found.stderr


class Module:
    """Stands for what torch has for a kind of accelerator, of which there is none here."""

    def device_count(self):
        return 2

    def memory_stats(self, device):
        return {"allocated_bytes.all.current": 5 + device.index, "reserved_bytes.all.current": 8,
                "allocated_bytes.all.peak": 7}


@pytest.mark.parametrize("module, statistics", [(Module(), (5, 8, 7)), (object(), (None, None, None))])
def test_each_accelerator_tells_and_one_without_statistics_tells_less(monkeypatch, module, statistics):
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: torch.device("xpu", 0))
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda device: 100)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 90.0)
    monkeypatch.setattr(torch, "get_device_module", lambda kind: module)
    *found, host = memory_report()
    assert host["device"] == "cpu" and len(found) == (2 if isinstance(module, Module) else 1)
    assert found[0] == dict(zip(FIELDS, ("xpu:0", 100, 90, *statistics), strict=True))


@pytest.mark.gpu
def test_a_gpu_tells_what_torch_has_allocated():
    kept = torch.zeros(1 << 20, device="cuda")
    found = next(one for one in memory_report() if one["device"] == "cuda:0")
    assert found["allocated"] >= kept.nbytes and found["free"] < found["total"]
