"""What runs on the CPU runs on a device of its own, with the same result, in every mode."""

import numpy as np
import pytest
import torch
from PIL import Image

import comfy.utils
import folder_paths
from tests.comfy import tiny_library
from tests.comfy.device_graphs import DRAWN_ON_THE_DEVICE, GRAPHS, ROUNDED
from tests.fakes.graphs import Bench, Graph, all_nodes, tensors_in

MODES = ("gpu_only", "normalvram")
SIZE = (48, 32)


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """All nodes, a library of tiny models, and folders of their own with a picture in the input folder."""
    base = tmp_path_factory.mktemp("world")
    kinds = ("input", "output", "temp")
    before = {kind: folder_paths.get_directory_by_type(kind) for kind in kinds}
    for kind in kinds:
        (base / kind).mkdir()
        getattr(folder_paths, f"set_{kind}_directory")(str(base / kind))
    width, height = SIZE
    pixels = np.linspace(0, 255, width * height * 4).reshape(height, width, 4).astype(np.uint8)
    pixels[8:20, 10:30, 3] = 0
    Image.fromarray(pixels).save(base / "input" / "picture.png")
    comfy.utils.save_torch_file({"latent_tensor": torch.ones(2, 4, 4, 6)}, base / "input" / "saved.latent",
                                metadata={"latent_format_version_0": ""})
    (base / "models").mkdir()
    with tiny_library.library(base / "models"), all_nodes():
        yield base
    for kind, path in before.items():
        getattr(folder_paths, f"set_{kind}_directory")(path)


@pytest.fixture(scope="module")
def benches(world):
    return {mode: Bench(mode) for mode in (None, *MODES)}


@pytest.fixture(scope="module")
def expected(benches):
    """What a graph gives on the CPU."""
    known = {}

    def of(name):
        if name not in known:
            known[name] = benches[None].run(filled(name))
        return known[name]

    return of


def filled(name) -> Graph:
    g = Graph()
    GRAPHS[name](g)
    return g


def assert_same(found, expected, tolerance=2e-5):
    """Equal shapes and dtypes, and values within `tolerance` of the largest."""
    found, expected = tensors_in(found), tensors_in(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if b.numel():
            off = float((a.cpu().double() - b.double()).abs().max())
            assert off <= tolerance * max(1.0, float(b.double().abs().max())), off


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_workflow_gives_on_the_device_what_it_gives_on_the_cpu(name, mode, benches, expected):
    tolerance = {**dict.fromkeys(ROUNDED, 1.1 / 255), **dict.fromkeys(DRAWN_ON_THE_DEVICE, 3.0)}
    found = benches[mode].run(filled(name))
    assert_same(found, expected(name), tolerance.get(name, 2e-5))
