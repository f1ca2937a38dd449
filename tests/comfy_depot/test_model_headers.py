"""What the header of a safetensors file says of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import model_headers
from comfy_depot.model_headers import Header, read

UNET = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"


def write(path: Path, shapes: dict[str, list[int]], metadata: Any = None, *, missing: int = 0) -> Path:
    """A file with these tensors of one byte per number."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for key, shape in shapes.items():
        begin, end = end, end + shape[0] * shape[-1]
        header[key] = {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end - missing))
    return path


FLUX = {"double_blocks.0.img_attn.qkv.weight": [4, 4], "vector_in.in_layer.weight": [4, 4],
        "txt_in.weight": [4, 4], "final_layer.linear.weight": [1, 1]}
FILL = {**FLUX, "img_in.weight": [3072, 384]}


@pytest.mark.parametrize(("shapes", "metadata", "model", "said_by"), [
    ({}, {"modelspec.architecture": "stable-diffusion-v1/lora"}, ("sd1", None), "modelspec.architecture"),
    ({}, {"modelspec.architecture": "stable-diffusion-xl-v1-base", "ss_base_model_version": "sd_v1"},
     ("sdxl", None), "modelspec.architecture"),
    ({}, {"ss_base_model_version": "sdxl_base_v1-0"}, ("sdxl", None), "ss_base_model_version"),
    ({}, {"modelspec.architecture": "Flux.2-dev"}, ("flux2", "dev"), "modelspec.architecture"),
    ({}, {"modelspec.architecture": "Of-My-Own"}, ("of-my-own", None), "modelspec.architecture"),
    ({}, {"modelspec.architecture": "", "title": "nothing"}, (None, None), None),
    ({UNET: [4, 768]}, {"modelspec.architecture": "unknown"}, ("sd1", None), "shapes"),
    ({UNET: [4, 768]}, {"modelspec.architecture": "unknown", "ss_base_model_version": "sd_v2"},
     ("sd2", None), "ss_base_model_version"),
    ({UNET: [4, 1024]}, {"modelspec.architecture": ["no text"]}, ("sd2", None), "shapes"),
    ({"transformer_blocks.0.attn2.to_k.weight": [4, 2048]}, None, (None, None), None),
    (FLUX, None, ("flux1", None), "shapes"),
    (FILL, None, ("flux1", "fill"), "shapes"),
    (FILL, {"ss_base_model_version": "flux1"}, ("flux1", "fill"), "ss_base_model_version"),
    (FILL, {"ss_base_model_version": "flux1-schnell"}, ("flux1", "schnell"), "ss_base_model_version"),
    (FILL, {"ss_base_model_version": "sdxl"}, ("sdxl", None), "ss_base_model_version"),
])  # fmt: skip
def test_the_family_is_what_the_file_says_or_what_only_one_family_has(
    tmp_path: Path, shapes: dict[str, list[int]], metadata: Any, model: tuple[str | None, str | None],
    said_by: str | None,
) -> None:
    stamp, header = read(str(write(tmp_path / "a", shapes, metadata)))
    assert (header.base_model, header.variant) == model
    assert (header.base_model_from, header.problem) == (said_by, None)
    assert header.tensors == len(shapes) and stamp.size == (tmp_path / "a").stat().st_size


def test_metadata_is_cut_to_what_a_list_can_hold(tmp_path: Path) -> None:
    metadata = {"title": "A", "tags": "x" * 5000, "number": 3, **{f"k{n:03}": "y" * 200 for n in range(100)}}
    _, header = read(str(write(tmp_path / "a", {"w": [1, 2]}, metadata)))
    kept = json.loads(header.metadata or "")
    assert kept["title"] == "A" and kept["number"] == "3" and kept["tags"] == "x" * 256 + "..."
    assert len(header.metadata or "") < 2 * model_headers.LARGEST_METADATA and "k099" not in kept
    assert header.dtypes == "F8_E4M3 1"


@pytest.mark.parametrize(("body", "problem"), [
    (b"", "cut off, or no safetensors file"),
    (b"<html>a page in the place of a model</html>", "cut off, or no safetensors file"),
    ((2).to_bytes(8, "little") + b"[]", "cannot be read"),
    ((9).to_bytes(8, "little") + b'{"a": []}', "cannot be read"),
    ((9).to_bytes(8, "little") + b"\xff" * 9, "cannot be read"),
    ((200_000).to_bytes(8, "little") + b"[" * 200_000, "cannot be read"),
    ((9 << 20).to_bytes(8, "little") + bytes(9 << 20), "has 9437184 bytes, and 8388608 are read"),
    ((2).to_bytes(8, "little") + b"{} more", "behind its end"),
])  # fmt: skip
def test_what_is_no_safetensors_file_is_said_to_be_none(tmp_path: Path, body: bytes, problem: str) -> None:
    (tmp_path / "a").write_bytes(body)
    _, header = read(str(tmp_path / "a"))
    assert problem in (header.problem or "") and header == Header(problem=header.problem)


def test_a_file_that_is_still_being_written_has_a_problem(tmp_path: Path) -> None:
    _, header = read(str(write(tmp_path / "a", {"w": [4, 4]}, missing=1)))
    assert header.problem == "it is cut off or has something behind its end"
