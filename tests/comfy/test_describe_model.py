"""`scripts/describe_model.py` says what a model file is, for those who add a family."""

import pytest
import torch

import comfy.utils
from scripts.describe_model import folded, main


def test_indices_are_folded_to_ranges():
    one = torch.zeros(2, 3)
    weights = {f"blocks.{i}.parts.{j}.weight": one for i in range(3) for j in (0, 2)}
    weights |= {"blocks.7.bias": one.half(), "end": torch.zeros(())}
    assert folded(weights) == [
        ("blocks.{0..2}.parts.{0,2}.weight", "[2, 3]", "float32"),
        ("blocks.7.bias", "[2, 3]", "float16"),
        ("end", "[]", "float32"),
    ]


def test_a_known_and_an_unknown_file(capsys: pytest.CaptureFixture[str], tmp_path):
    assert main(["tests/data/demo_shapes.safetensors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Stable Diffusion 1.x" and "training_seed: 20" in lines
    assert any("model.diffusion_model.time_embed.0.weight" in line and "float16" in line for line in lines)
    file = tmp_path / "other.safetensors"
    comfy.utils.save_torch_file({"a.0.weight": torch.zeros(1)}, str(file))
    assert main([str(file)]) == 0
    assert "of no model family that is known here" in capsys.readouterr().out


def test_what_cannot_be_read_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path):
    assert main([str(tmp_path / "none.safetensors")]) == 1
    assert "There is no model file" in capsys.readouterr().err
