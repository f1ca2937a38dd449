"""Names that node packs take from modules here: each is real, or says what is missing."""

import importlib
import math

import pytest
import torch
from PIL import Image

import comfy
from comfy.errors import FamilyAbsent
from comfy.ldm.lightricks import model as lightricks
from comfy_extras import nodes_lt, nodes_sag


@pytest.mark.parametrize("name", [
    "comfy.model_base.Timestep", "comfy.quant_ops.ck", "comfy.sample.np", "comfy.sd.StyleModel",
    "comfy_extras.nodes_gits.NOISE_LEVELS", "comfy_extras.nodes_gits.loglinear_interp",
    "comfy_extras.nodes_lt.SymmetricPatchifier", "latent_preview.TAESD", "server.uuid",
])  # fmt: skip
def test_a_name_is_there(name):
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is not None


def test_parts_are_imported_when_they_are_named():
    assert comfy.ldm.models.autoencoder.AutoencoderKL
    with pytest.raises(AttributeError, match="module 'comfy.ldm' has no attribute 'nonsense'"):
        comfy.ldm.nonsense  # noqa: B018


def test_the_missing_kitchen_is_named_when_it_is_used():
    from comfy import quant_ops

    if quant_ops._CK_AVAILABLE:
        pytest.skip("comfy-kitchen is installed")
    with pytest.raises(ImportError, match="comfy.quant_ops.ck.quantize needs the package comfy-kitchen"):
        quant_ops.ck.quantize()


def test_classes_of_absent_families_cannot_be_built():
    from comfy.controlnet import ControlNet, ControlNetSD35

    assert issubclass(ControlNetSD35, ControlNet)
    with pytest.raises(FamilyAbsent):
        ControlNetSD35(None)


def test_positions_of_ltx_video_turn_neighbours_by_angles_up_to_theta():
    grid = torch.tensor([[[0.0, 20.0], [1024.0, 0.0], [0.0, 2048.0]]])  # (B, 3, tokens)
    cos, sin = lightricks.precompute_freqs_cis(grid, 14, torch.float64)
    assert torch.equal(cos[..., :2], torch.ones(1, 2, 2).double()) and not sin[..., :2].any()
    # dim // 6 = 2 frequencies: pi/2 and theta * pi/2; per frequency the three axes, each channel twice
    places = grid[0, :, 0] / torch.tensor([20.0, 2048.0, 2048.0]) * 2 - 1
    for number, frequency in enumerate((math.pi / 2, 10000.0 * math.pi / 2)):
        for axis in range(3):
            channel = 2 + 6 * number + 2 * axis
            expected = math.cos(float(places[axis]) * frequency)
            assert cos[0, 0, channel] == pytest.approx(expected, abs=2e-3) == cos[0, 0, channel + 1]


def test_frequencies_grow_in_equal_ratios_to_theta():
    found = lightricks.generate_freq_grid_np(10000.0, 3, 18)
    torch.testing.assert_close(found, torch.tensor([1.0, 100.0, 10000.0]) * math.pi / 2)


def test_guides_are_counted_by_tokens_by_entries_or_by_their_times():
    places = torch.zeros(1, 3, 8, 2)
    places[0, 0, 4:, 0] = 1
    for extras, shape, count in (({}, (1, 4, 3, 2, 2), 2), ({}, None, 2),
                                 ({"guide_attention_entries": [{"latent_shape": (5, 2, 2)}]}, None, 5)):
        cond = [[None, {"keyframe_idxs": places, **extras}]]
        assert nodes_lt.get_keyframe_idxs(cond, shape) == (places, count)
    assert nodes_lt.get_keyframe_idxs([[None, {}]]) == (None, 0)


def test_a_blur_keeps_what_is_even_and_spreads_a_point_as_a_gaussian():
    flat = torch.full((1, 2, 9, 9), 0.25)
    torch.testing.assert_close(nodes_sag.gaussian_blur_2d(flat, 5, 1.0), flat)
    point = torch.zeros(1, 1, 9, 9)
    point[..., 4, 4] = 1.0
    spread = nodes_sag.gaussian_blur_2d(point, 9, 1.5)[0, 0]
    assert spread[4, 5] / spread[4, 4] == pytest.approx(math.exp(-0.5 / 1.5**2), rel=1e-4)


def test_a_folder_of_pictures_is_read_in_order(tmp_path):
    from comfy.k_diffusion.utils import FolderOfImages

    (tmp_path / "b").mkdir()
    for name, color in (("b/z.PNG", 9), ("a.png", 7), ("b/note.txt", None)):
        if color is None:
            (tmp_path / name).write_text("no picture")
        else:
            Image.new("L", (2, 2), color).save(tmp_path / name, format="PNG")
    pictures = FolderOfImages(tmp_path)
    assert [picture.getpixel((0, 0)) for (picture,) in (pictures[0], pictures[1])] == [(7,) * 3, (9,) * 3]
    sizes = FolderOfImages(tmp_path, transform=lambda picture: picture.size)
    assert len(pictures) == 2 and sizes[1] == ((2, 2),)


def test_noise_of_a_vector_is_that_of_its_level():
    from comfy.model_base import CLIPEmbeddingNoiseAugmentation, sdxl_pooled

    augment = CLIPEmbeddingNoiseAugmentation(timestep_dim=8)
    x = torch.ones(2, 8)
    mixed, level = augment(x, noise_level=torch.tensor([0, 999]), seed=3)
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    for row, step in enumerate((0, 999)):
        alpha = augment.alphas[step]
        torch.testing.assert_close(mixed[row], alpha.sqrt() * x[row] + (1 - alpha).sqrt() * noise[row])
    assert level.shape == (2, 8) and not torch.equal(level[0], level[1])
    assert sdxl_pooled({"pooled_output": "as it is"}, augment) == "as it is"


def test_other_views_of_a_model_leave_the_device(monkeypatch):
    from comfy import model_management
    from comfy.model_patcher import ModelPatcher

    cpu = torch.device("cpu")
    patcher = ModelPatcher(torch.nn.Linear(2, 2), cpu, cpu)
    view, other = patcher.clone(), ModelPatcher(torch.nn.Linear(2, 2), cpu, cpu)
    monkeypatch.setattr(model_management, "current_loaded_models", [])
    model_management.load_models_gpu([view, other])
    assert model_management.unload_model_clones(patcher)
    assert [loaded.model for loaded in model_management.current_loaded_models] == [other]
    assert not model_management.unload_model_clones(patcher)


def test_a_guide_is_entered_on_both_sides_apart():
    mask = torch.ones(2, 4, 4)
    sides = nodes_lt._append_guide_attention_entry([[None, {}]], [[None, {}]], 8, [2, 2, 2], 0.5, mask)
    for ((_, extras),) in sides:
        (entry,) = extras["guide_attention_entries"]
        assert entry["pixel_mask"].shape == (1, 1, 2, 4, 4) and entry["pre_filter_count"] == 8
    (more, _) = nodes_lt._append_guide_attention_entry(*sides, 4, [1, 2, 2])
    assert [entry["strength"] for entry in more[0][1]["guide_attention_entries"]] == [0.5, 1.0]


def test_rows_of_a_modulation_change_their_segments_in_place():
    from comfy.ldm.minimax import model

    h, other, rows = torch.ones(4, 2), torch.full((4, 2), 3.0), torch.tensor([[1.0, 1.0], [2.0, 0.5]])
    assert model._mod_scale_shift(h, rows, rows, [(0, 1, 0), (2, 4, 1)]) is h
    assert h.tolist() == [[3, 3], [1, 1], [5, 2], [5, 2]]
    assert model._mod_gate(h, rows, other, [(1, 2, 1)])[1].tolist() == [7, 2.5]


def test_layers_of_tiny_autoencoders_have_the_weights_of_their_files():
    from comfy.taesd.taesd import Block, Clamp, conv

    block = Block(2, 4, use_midblock_gn=True)
    names = ["conv.0", "conv.2", "conv.4", "skip", "pool.0", "pool.1", "pool.3"]
    assert {name.rpartition(".")[0] for name in block.state_dict()} == set(names)
    assert block.state_dict()["pool.0.weight"].shape == (8, 2, 1, 1)
    assert conv(3, 5, stride=2).state_dict()["weight"].shape == (5, 3, 3, 3)
    torch.testing.assert_close(Clamp()(torch.tensor([100.0, 0.3])), torch.tensor([3.0, 3 * math.tanh(0.1)]))
