"""What runs on the CPU runs on a device of its own, with the same result, in every mode."""

import gc
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import comfy.sd
import comfy.utils
import folder_paths
from comfy.taesd import taesd
from comfy_execution.results.size import measure
from scripts import demo_shapes
from tests.comfy import test_taesd, tiny_library
from tests.comfy.device_graphs import DRAWN_ON_THE_DEVICE, ROUNDED
from tests.comfy.device_graphs_of_models import GRAPHS
from tests.fakes import accounting_device, accounting_module
from tests.fakes.accelerator import accelerated
from tests.fakes.graphs import Bench, Graph, all_nodes, tensors_in

MODES = ("gpu_only", "normalvram")
SIZE = (48, 32)
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """(folder, library): all nodes, tiny models, and folders of their own with a picture as input."""
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
    comfy.utils.save_torch_file(
        {"latent_tensor": torch.ones(2, 4, 4, 6)},
        base / "input" / "saved.latent",
        metadata={"latent_format_version_0": ""},
    )
    with tiny_library.Library(base / "models") as library, all_nodes():
        yield base, library
    for kind, path in before.items():
        getattr(folder_paths, f"set_{kind}_directory")(path)


@pytest.fixture(scope="module")
def filled(world):
    """A graph by its name, with the files of its models."""

    def fill(name) -> Graph:
        g = Graph()
        GRAPHS[name](g)
        inputs = [value for node in g.prompt.values() for value in node["inputs"].values()]
        world[1].provide(*(value for value in inputs if isinstance(value, str)))
        return g

    return fill


@pytest.fixture(scope="module")
def benches(world):
    return {mode: Bench(mode) for mode in (None, *MODES)}


@pytest.fixture(scope="module")
def expected(benches, filled):
    """What a graph gives on the CPU."""
    known = {}

    def of(name):
        if name not in known:
            known[name] = benches[None].run(filled(name))
        return known[name]

    return of


def assert_same(found, expected, tolerance=2e-5):
    """Equal shapes and dtypes, and values within `tolerance` of the largest."""
    found, expected = tensors_in(found), tensors_in(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if b.numel():
            off = float((a.cpu().double() - b.double()).abs().max())
            assert off <= tolerance * max(1.0, float(b.double().abs().max())), off


TOLERANCE = {**dict.fromkeys(ROUNDED, 1.1 / 255), **dict.fromkeys(DRAWN_ON_THE_DEVICE, 3.0)}


@pytest.fixture(scope="module")
def assert_as_on_the_cpu(benches, expected, filled):
    def check(name, mode):
        benches.setdefault(mode, Bench(mode))
        assert_same(benches[mode].run(filled(name)), expected(name), TOLERANCE.get(name, 2e-5))

    return check


# --- every workflow in every mode ---------------------------------------------------------------------

FIRST = ["family_sd1", "family_flux", "picture_to_picture", "lora", "latents"]
FAMILIES = [name for name in GRAPHS if name.startswith("family_")]


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_a_workflow_that_stays_on_the_device_gives_what_it_gives_on_the_cpu(name, assert_as_on_the_cpu):
    assert_as_on_the_cpu(name, "gpu_only")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_workflow_gives_on_the_device_what_it_gives_on_the_cpu(name, mode, assert_as_on_the_cpu):
    assert_as_on_the_cpu(name, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["highvram", "lowvram", "novram"])
@pytest.mark.parametrize("name", [*FAMILIES, "lora", "control_net"])
def test_a_family_gives_the_same_in_every_other_mode(name, mode, assert_as_on_the_cpu):
    assert_as_on_the_cpu(name, mode)


@pytest.mark.slow
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_in_half_precision_is_near_the_full_one(name, half, benches, expected, filled):
    benches.setdefault(half, Bench("normalvram", half=half))
    found, full = (tensors_in(of) for of in (benches[half].run(filled(name)), expected(name)))
    for a, b in zip(found, full, strict=True):
        assert a.shape == b.shape and torch.isfinite(a).all()
        off = (a.cpu().double() - b.double()).pow(2).mean().sqrt()
        assert off <= 0.15 * b.double().pow(2).mean().sqrt()


# --- where things are ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "place"), [("gpu_only", "acct"), ("normalvram", "cpu")])
def test_conditioning_latents_and_pictures_rest_where_the_mode_says(mode, place, benches, filled):
    found = tensors_in(benches[mode].run(filled("family_sd1")))
    assert {tensor.device.type for tensor in found} == {place} and len(found) == 5


@pytest.mark.slow
def test_nothing_stays_on_the_device_once_nobody_uses_it(filled):
    bench = Bench("gpu_only")
    gc.collect()
    before = accounting_module.memory.active
    kept = bench.run(filled("family_sd1"))
    assert accounting_module.memory.active - before > 1 << 20
    del kept, bench
    gc.collect()
    assert accounting_module.memory.active == before


def test_results_that_are_kept_on_the_device_are_no_ram():
    with accelerated() as device:
        picture = torch.zeros(1, 64, 64, 3, device=device)
        found = measure([{"samples": picture, "view": picture[0]}, {"other": torch.zeros(10)}])
    assert found.is_elsewhere and found.device == picture.nbytes
    assert list(found.blocks.values()) == [40]


# --- files --------------------------------------------------------------------------------------------


def files_of(bench, graph, base):
    """The files that a graph writes, by kind and name."""
    before = set(base.rglob("*"))
    bench.run(graph)
    written = [path for path in set(base.rglob("*")) - before if path.is_file()]
    return sorted(written, key=lambda path: (path.suffix, path.parent, path.name))


def test_pictures_and_latents_are_saved_from_the_device(benches, world, filled):
    found, expected = (files_of(benches[mode], filled("files"), world[0]) for mode in ("gpu_only", None))
    assert [path.suffix for path in expected] == [".latent", *[".png"] * 4]
    for a, b in zip(found[1:], expected[1:], strict=True):
        pixels, on_the_cpu = (np.asarray(Image.open(path)).astype(int) for path in (a, b))
        assert pixels.shape == on_the_cpu.shape and np.abs(pixels - on_the_cpu).max() <= 1
    latents = [safetensors.torch.load_file(path)["latent_tensor"] for path in (found[0], expected[0])]
    assert_same(*latents)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_models_are_saved_from_the_device_as_from_the_cpu(mode, world, filled):
    found, expected = (files_of(Bench(of), filled("saved_models"), world[0]) for of in (mode, None))
    assert len(expected) == 4
    for a, b in zip(found, expected, strict=True):
        ours, theirs = (safetensors.torch.load_file(path) for path in (a, b))
        assert set(ours) == set(theirs)
        for key, tensor in theirs.items():
            torch.testing.assert_close(ours[key], tensor)


# --- a full device ------------------------------------------------------------------------------------


def test_a_picture_that_does_not_fit_is_decoded_in_tiles(caplog, tmp_path):
    weights = taesd.weights_of("taesd", *test_taesd.author_files(test_taesd.tiny_autoencoder(), tmp_path))
    with accelerated(), torch.inference_mode():
        vae = comfy.sd.VAE(sd=weights)
        latent = torch.randn(1, 4, 8, 256, generator=torch.Generator().manual_seed(1))
        memory = accounting_module.memory
        start = memory.peak = memory.active
        whole = vae.decode(latent)
        with accounting_device.limited_to(start + (memory.peak - start) * 3 // 4):
            tiled = vae.decode(latent)
    assert "going on in tiles" in caplog.text and "out of memory" in caplog.text
    assert (tiled - whole).abs().mean() < 0.1


@pytest.mark.slow
def test_models_make_room_for_each_other_on_a_device_that_is_full(world, filled):
    names = ("family_sd1", "family_sd2", "family_sd1")
    sizes = [path.stat().st_size for path in (world[0] / "models/checkpoints").glob("sd[12].*")]
    bench = Bench("normalvram", capacity=accounting_module.memory.active + sum(sizes))
    for name in names:
        assert_same(bench.run(filled(name)), Bench().run(filled(name)))


# --- the demo model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["gpu_only", pytest.param("normalvram", marks=pytest.mark.slow)])
def test_the_demo_model_draws_what_the_prompt_says_on_the_device(mode, world):
    place = world[0] / "models/checkpoints/demo_shapes.safetensors"
    if not place.exists():
        place.symlink_to(DATA / "demo_shapes.safetensors")
        folder_paths.filename_list_cache.clear()
    graph = Graph()
    graph.prompt = json.loads((DATA / "demo_prompt.json").read_text())
    graph.keep(["8", 0])
    drawn, expected = (Bench(of).run(graph)[0].cpu()[0].numpy() for of in (mode, None))
    seen = demo_shapes.look(drawn)
    assert (seen.colour, seen.shape) == ("red", "circle")
    assert np.abs(drawn - expected).max() < 1e-4
