"""Reading model files with their errors, state-dict surgery, and the small tensor helpers."""

import json
import struct

import pytest
import torch

import comfy.utils
from comfy.errors import UnreadableModelFile


def test_a_safetensors_file_comes_back_as_it_was_saved_with_its_metadata(tmp_path):
    path = tmp_path / "a.safetensors"
    comfy.utils.save_torch_file({"w": torch.arange(6.0).reshape(2, 3)}, path, metadata={"prompt": "{}"})
    weights, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    assert torch.equal(weights["w"], torch.arange(6.0).reshape(2, 3))
    assert metadata == {"prompt": "{}"}
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_without_mmap_the_tensors_do_not_depend_on_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    comfy.utils.save_torch_file({"w": torch.ones(4)}, path)
    monkeypatch.setattr(comfy.utils, "DISABLE_MMAP", True)
    weights = comfy.utils.load_torch_file(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(weights["w"], torch.ones(4))


@pytest.mark.parametrize(
    "content",
    [{"state_dict": {"w": torch.ones(1)}, "epoch": 3}, {"model": {"w": torch.ones(1)}}, {"w": torch.ones(1)}],
)
def test_a_pickled_checkpoint_gives_the_state_dict_inside(tmp_path, content):
    path = tmp_path / "a.ckpt"
    torch.save(content, path)
    assert list(comfy.utils.load_torch_file(path)) == ["w"]


class Evil:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("code ran",))


def test_pickled_code_is_never_run(tmp_path, capsys):
    path = tmp_path / "evil.ckpt"
    torch.save({"w": Evil()}, path)
    with pytest.raises(UnreadableModelFile, match=r"\(Unsupported global.* print .*\).*never run") as caught:
        comfy.utils.load_torch_file(path)
    assert "Re-running" not in str(caught.value), "torch's advice is to run the code"
    assert "code ran" not in capsys.readouterr().out


def good_file() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 16


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.safetensors", b"", "is empty"),
        ("page.safetensors", b"<!DOCTYPE html><html>Log in</html>", "a web page"),
        ("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        ("zip.safetensors", b"PK\x03\x04" + b"\0" * 60, "zip archive"),
        ("model.safetensors", b"GGUF\x03\0\0\0" + b"\0" * 60, "GGUF"),
        ("error.safetensors", b'{"error": "not found"}', "JSON text"),
        ("cut.safetensors", good_file()[:-5], "incomplete: its header describes 8"),
        ("cut_header.safetensors", good_file()[:20], "incomplete"),
        ("noise.safetensors", bytes(range(7, 107)), "not a readable safetensors file"),
        ("short.safetensors", b"abc", "not a readable safetensors file"),
        ("page.ckpt", b"<html>", "a web page"),
        ("noise.ckpt", bytes(range(100, 200)), "not a checkpoint|no checkpoint"),
        ("cut.ckpt", b"PK\x03\x04" + b"\0" * 60, "damaged or no checkpoint"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_a_sentence_that_names_it(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableModelFile, match=message) as caught:
        comfy.utils.load_torch_file(path)
    assert str(path) in str(caught.value)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(UnreadableModelFile, match="is a folder"):
        comfy.utils.load_torch_file(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no model file"):
        comfy.utils.load_torch_file(tmp_path / "gone.safetensors")


def test_a_pickle_that_holds_no_dictionary_is_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(UnreadableModelFile, match="holds a Tensor"):
        comfy.utils.load_torch_file(tmp_path / "tensor.pt")


def test_prefixes_are_replaced_and_with_a_filter_only_those_come_out():
    weights = {"model.a": 1, "model.b": 2, "other": 3}
    assert comfy.utils.state_dict_prefix_replace(weights, {"model.": ""}, filter_keys=True) == {
        "a": 1,
        "b": 2,
    }
    assert weights == {"other": 3}
    assert comfy.utils.state_dict_prefix_replace({"x.a": 1, "c": 2}, {"x.": "y."}) == {"c": 2, "y.a": 1}
    assert comfy.utils.state_dict_key_replace({"a": 1}, {"a": "b", "no": "c"}) == {"b": 1}


def test_size_and_usual_dtype_of_weights_are_counted_below_a_prefix():
    weights = {"m.a": torch.zeros(10, dtype=torch.float16), "m.b": torch.zeros(3), "n": torch.zeros(99)}
    assert comfy.utils.calculate_parameters(weights, "m.") == 13
    assert comfy.utils.weight_dtype(weights, "m.") is torch.float16
    assert comfy.utils.weight_dtype(weights, "x.") is None
    assert comfy.utils.convert_sd_to(weights, torch.float64)["n"].dtype is torch.float64


def test_attributes_are_read_and_set_by_dotted_name():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    old = comfy.utils.set_attr_param(module, "0.weight", torch.ones(2, 2))
    assert torch.equal(comfy.utils.get_attr(module, "0.weight"), torch.ones(2, 2))
    comfy.utils.copy_to_param(module, "0.weight", old)
    assert torch.equal(module[0].weight, old)
    assert comfy.utils.set_attr(module, "0.mark", 5) is comfy.utils.ATTR_UNSET
    comfy.utils.set_attr(module, "0.mark", comfy.utils.ATTR_UNSET)
    assert not hasattr(module[0], "mark")


@pytest.mark.parametrize(
    ("size", "wanted", "expected"), [(2, 5, [0, 1, 0, 1, 0]), (3, 2, [0, 1]), (2, 2, [0, 1])]
)
def test_a_batch_is_repeated_or_cut(size, wanted, expected):
    assert comfy.utils.repeat_to_batch_size(torch.arange(size), wanted).tolist() == expected


@pytest.mark.parametrize(
    ("size", "wanted", "expected"),
    [(2, 4, [0, 0, 1, 1]), (5, 3, [0, 2, 4]), (3, 1, [0]), (3, 3, [0, 1, 2]), (2, 5, [0, 0, 1, 1, 1])],
)
def test_a_batch_is_spread_evenly(size, wanted, expected):
    assert comfy.utils.resize_to_batch_size(torch.arange(size), wanted).tolist() == expected
    assert comfy.utils.resize_list_to_batch_size(list(range(size)), wanted) == expected


def test_a_mask_gets_the_axes_channels_and_batch_of_a_latent():
    mask = comfy.utils.reshape_mask(torch.ones(8, 8), (2, 4, 16, 12))
    assert mask.shape == (2, 4, 16, 12)
    assert comfy.utils.reshape_mask(torch.ones(3, 8, 8), (1, 4, 3, 16, 12)).shape == (1, 4, 3, 16, 12)
    assert comfy.utils.reshape_mask(torch.ones(1, 1, 8), (2, 4, 16)).shape == (2, 4, 16)


def test_latents_of_different_shapes_are_packed_and_come_out_again():
    latents = [torch.randn(2, 4, 3, 3), torch.randn(2, 2, 5)]
    packed, shapes = comfy.utils.pack_latents(latents)
    assert packed.shape == (2, 1, 46)
    for before, after in zip(latents, comfy.utils.unpack_latents(packed, shapes), strict=True):
        assert torch.equal(before, after)
    assert comfy.utils.unpack_latents(packed, shapes[:1])[0] is packed


def test_a_text_gives_the_same_seed_as_its_crc32():
    assert comfy.utils.string_to_seed("123456789") == 0xCBF43926  # the check value of CRC-32
    assert comfy.utils.string_to_seed(b"123456789") == 0xCBF43926


def test_a_warning_is_logged_once(caplog):
    comfy.utils.warn_once("only once, please")
    comfy.utils.warn_once("only once, please")
    assert [record.message for record in caplog.records] == ["only once, please"]
