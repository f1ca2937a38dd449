"""A trained LoRA changes a model and is saved, its loss is drawn, and training says that it is absent."""

import pytest
import safetensors.torch
import torch

import comfy.sd
import folder_paths
from comfy_extras.absent_families import FamilyAbsent
from comfy_extras.nodes_photomaker import PhotoMakerLoader
from comfy_extras.nodes_train import MARGIN, LoraModelLoader, SaveLoRA, TrainLoraNode, draw_losses
from tests.comfy import tiny_sd1

LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
KEY = "diffusion_model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"


def test_a_trained_lora_is_put_on_a_model_and_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    model = comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint())[0]
    lora = {f"{LAYER}.lora_up.weight": torch.ones(32, 2), f"{LAYER}.lora_down.weight": torch.ones(2, 32)}
    changed = LoraModelLoader.execute(model, lora, 0.5).args[0]
    assert [patch[0] for patch in changed.patches[KEY]] == [0.5]
    beside = LoraModelLoader.execute(model, lora, 0.5, bypass=True).args[0]
    assert not beside.patches and beside.injections
    assert LoraModelLoader.execute(model, lora, 0.0).args[0] is model
    SaveLoRA.execute(lora, "mine", 12)
    SaveLoRA.execute(lora, "other")
    for name in ("mine_12_steps_00001_.safetensors", "other_00001_.safetensors"):
        assert safetensors.torch.load_file(tmp_path / name).keys() == lora.keys()


def test_losses_are_drawn_from_left_to_right_with_the_largest_at_the_top():
    picture = draw_losses([4.0, 1.0, 1.0, 0.0])[0]
    blue = (picture == torch.tensor([0.0, 0.0, 1.0])).all(-1)
    height, width = (side - MARGIN for side in blue.shape)

    def height_at(place):
        """The middle of the line, 0 at the top and 1 at the axis."""
        return float(blue[:, MARGIN + place].nonzero().float().mean() / height)

    assert height_at(2) < 0.05  # the first is the largest
    assert 0.7 < height_at(width // 3 + 4) < 0.8 and 0.7 < height_at(2 * width // 3 - 4) < 0.8
    assert height_at(width - 4) > 0.95
    draw_losses([1.0])
    with pytest.raises(ValueError, match="The loss map is empty: nothing was trained"):
        draw_losses([])


def test_what_is_not_here_says_so():
    with pytest.raises(NotImplementedError, match="Train LoRA is not in this version. Train with"):
        TrainLoraNode.execute(model=[None])
    with pytest.raises(FamilyAbsent, match="PhotoMakerLoader needs PhotoMaker"):
        PhotoMakerLoader.execute(photomaker_model_name="x")
