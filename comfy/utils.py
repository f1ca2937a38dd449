"""Reading and writing model files, state-dict surgery, and small tensor helpers that packs import.

Resizing lives in `comfy.image_scaling`, the progress bar in `comfy.progress_bar`; both are re-exported here.
"""

import json
import logging
import math
import os
import pickle
import struct
import zipfile

import torch

from comfy.diffusers_names import (
    TRANSFORMER_BLOCKS,
    UNET_MAP_ATTENTIONS,
    UNET_MAP_BASIC,
    UNET_MAP_RESNET,
    unet_to_diffusers,
)
from comfy.errors import UnreadableModelFile
from comfy.image_scaling import (
    bislerp,
    common_upscale,
    get_tiled_scale_steps,
    lanczos,
    tiled_scale,
    tiled_scale_multidim,
)
from comfy.progress_bar import ProgressBar, set_progress_bar_global_hook
from comfy.quant_ops import convert_old_quants
from comfy_depot import hooks as depot

__all__ = [
    "TRANSFORMER_BLOCKS", "UNET_MAP_ATTENTIONS", "UNET_MAP_BASIC", "UNET_MAP_RESNET", "convert_old_quants",
    "unet_to_diffusers",
    "ProgressBar", "bislerp", "calculate_parameters", "common_upscale", "convert_sd_to", "copy_to_param",
    "get_attr", "get_tiled_scale_steps", "lanczos", "load_torch_file", "pack_latents", "repeat_to_batch_size",
    "reshape_mask", "resize_list_to_batch_size", "resize_to_batch_size", "safetensors_header",
    "save_torch_file",
    "set_attr", "set_attr_param", "set_progress_bar_enabled", "set_progress_bar_global_hook",
    "state_dict_key_replace", "state_dict_prefix_replace", "string_to_seed", "tiled_scale",
    "tiled_scale_multidim", "unpack_latents", "weight_dtype",
]  # fmt: skip

# Packs read and set these three, so they are module globals; False means "as the command line says".
PROGRESS_BAR_ENABLED = True
MMAP_TORCH_FILES = False
DISABLE_MMAP = False

SAFETENSORS_SUFFIXES = (".safetensors", ".sft")


def set_progress_bar_enabled(enabled: bool) -> None:
    """Switch the progress bars that samplers print in the terminal."""
    global PROGRESS_BAR_ENABLED
    PROGRESS_BAR_ENABLED = enabled


# --- files ------------------------------------------------------------------------------------


@depot.takes_streamed
def load_torch_file(ckpt, safe_load=False, device=None, return_metadata=False):
    """Read a model file into a state dict, memory-mapped where the format allows it.

    Pickle formats are opened with `weights_only=True` always: a checkpoint never runs code.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableModelFile: the content is not what the name says, or a part of it is missing.
    """
    ckpt = os.fspath(ckpt)
    device = torch.device("cpu") if device is None else torch.device(device)
    _refuse_what_is_no_file(ckpt)
    if ckpt.lower().endswith(SAFETENSORS_SUFFIXES):
        state_dict, metadata = _load_safetensors(ckpt, device)
    else:
        state_dict, metadata = _load_pickle(ckpt, device), None
    return (state_dict, metadata) if return_metadata else state_dict


def _refuse_what_is_no_file(path: str) -> None:
    if os.path.isdir(path):
        raise UnreadableModelFile(f"'{path}' is a folder, not a model file. Choose the file inside it.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no model file '{path}'. Put it there, or choose another one.")
    if os.path.getsize(path) == 0:
        raise UnreadableModelFile(f"'{path}' is empty (0 bytes). Download it again.")


def _mmap_is_off() -> bool:
    from comfy.cli_args import args

    return DISABLE_MMAP or getattr(args, "disable_mmap", False)


def _load_safetensors(path: str, device: torch.device) -> tuple[dict, dict | None]:
    import safetensors

    where = str(device) if device.index is not None else device.type
    try:
        with safetensors.safe_open(path, framework="pt", device=where) as file:
            state_dict = {key: file.get_tensor(key) for key in file.keys()}
            metadata = file.metadata()
    except safetensors.SafetensorError as error:
        raise UnreadableModelFile(_what_is_wrong_with_safetensors(path, error)) from error
    if _mmap_is_off():
        state_dict = {key: tensor.clone() for key, tensor in state_dict.items()}
    return state_dict, metadata


def _what_is_wrong_with_safetensors(path: str, error: Exception) -> str:
    """One sentence on the file, from its first bytes and its length; the library's message is terse."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(64)
    kind = _looks_like(head)
    if kind:
        return (f"'{path}' is not a safetensors file: it begins like {kind}. "
                "Download it again, or give the file the extension of what it is.")  # fmt: skip
    needed = _bytes_a_safetensors_header_asks_for(path)
    if needed is not None and needed > size:
        return (f"'{path}' is incomplete: its header describes {needed:,} bytes, the file has {size:,}. "
                "Download it again.")  # fmt: skip
    return f"'{path}' is not a readable safetensors file ({error}). Download it again, or check what it is."


def _looks_like(head: bytes) -> str | None:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, probably an error or login page of the site it came from"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it points to"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive, as .ckpt and .pt files do"
    if head.startswith(b"GGUF"):
        return "a GGUF file"
    if text.startswith((b"{", b"[")) and b"\x00" not in head:
        return "JSON text"
    return None


def _bytes_a_safetensors_header_asks_for(path: str) -> int | None:
    """Length the whole file must have by its own header; None where the header itself is unreadable."""
    header = safetensors_header(path)
    if header is None:
        with open(path, "rb") as file:
            start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        # A header of more than 100 MB is no header; below that, the file ends before its header does.
        return 8 + length if 0 < length <= 100 * 1024 * 1024 else None
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return 8 + len(header) + max(ends, default=0)


def safetensors_header(safetensors_path, max_size=100 * 1024 * 1024) -> bytes | None:
    """The raw JSON header of a safetensors file; None where there is none of a sane length."""
    with open(safetensors_path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return None
        length = struct.unpack("<Q", start)[0]
        if length > max_size:
            return None
        header = file.read(length)
    return header if len(header) == length else None


def _load_pickle(path: str, device: torch.device) -> dict:
    with open(path, "rb") as file:
        kind = _looks_like(file.read(64))
    if kind and "zip archive" not in kind:
        raise UnreadableModelFile(f"'{path}' is not a checkpoint: it begins like {kind}. Download it again.")
    mmap = MMAP_TORCH_FILES and zipfile.is_zipfile(path)
    try:
        loaded = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise UnreadableModelFile(
            f"'{path}' is not a checkpoint that can be opened safely ({_refused_pickle(error)}). "
            "Use a .safetensors version of it; pickled code is never run."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UnreadableModelFile(
            f"'{path}' is damaged or no checkpoint ({_first_line(error)}). Download it again."
        ) from error
    return _state_dict_inside(loaded, path)


def _refused_pickle(error: Exception) -> str:
    """What torch refused, without its advice, which is to run the code."""
    _, _, reason = str(error).partition("WeightsUnpickler error:")
    return reason.strip().partition("\n")[0].partition(". ")[0] or type(error).__name__


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _state_dict_inside(loaded, path: str) -> dict:
    """Checkpoints wrap their weights as {"state_dict": ...} or as the only entry of a dict."""
    if isinstance(loaded, dict):
        if isinstance(loaded.get("state_dict"), dict):
            return loaded["state_dict"]
        if len(loaded) == 1:
            (only,) = loaded.values()
            if isinstance(only, dict):
                return only
        return loaded
    if isinstance(loaded, list):  # some textual inversion files
        return loaded
    raise UnreadableModelFile(f"'{path}' holds a {type(loaded).__name__}, not a dictionary of weights.")


def save_torch_file(sd, ckpt, metadata=None) -> None:
    """Write a state dict as safetensors: beside the target first, then renamed over it."""
    import safetensors.torch

    ckpt = os.fspath(ckpt)
    beside = f"{ckpt}.{os.getpid()}.part"
    tensors = {key: tensor.detach().contiguous() for key, tensor in sd.items()}
    try:
        safetensors.torch.save_file(tensors, beside, metadata=metadata)
        os.replace(beside, ckpt)
    finally:
        if os.path.exists(beside):
            os.unlink(beside)


# --- state dicts ------------------------------------------------------------------------------


def calculate_parameters(sd, prefix="") -> int:
    """Number of weights below `prefix`."""
    return sum(tensor.nelement() for key, tensor in sd.items() if key.startswith(prefix))


def weight_dtype(sd, prefix=""):
    """The dtype that most weights below `prefix` have; None where there are none."""
    counts: dict[torch.dtype, int] = {}
    for key, tensor in sd.items():
        if key.startswith(prefix):
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
    return max(counts, key=counts.__getitem__) if counts else None


def state_dict_key_replace(state_dict, keys_to_replace):
    """Rename single keys in place."""
    for old, new in keys_to_replace.items():
        if old in state_dict:
            state_dict[new] = state_dict.pop(old)
    return state_dict


def state_dict_prefix_replace(state_dict, replace_prefix, filter_keys=False):
    """Rename by prefix, taking the keys out of `state_dict`; with `filter_keys` only they are returned."""
    out = {} if filter_keys else state_dict
    for old, new in replace_prefix.items():
        for key in [key for key in state_dict if key.startswith(old)]:
            out[new + key[len(old) :]] = state_dict.pop(key)
    return out


def convert_sd_to(state_dict, dtype):
    """Cast every tensor in place."""
    for key in list(state_dict):
        state_dict[key] = state_dict[key].to(dtype)
    return state_dict


# --- attributes by dotted name ----------------------------------------------------------------

ATTR_UNSET: dict = {}


def _owner_of(obj, attr: str):
    *path, name = attr.split(".")
    for part in path:
        obj = getattr(obj, part)
    return obj, name


def get_attr(obj, attr: str):
    """`get_attr(model, "layer1.conv.weight")` is `model.layer1.conv.weight`."""
    owner, name = _owner_of(obj, attr)
    return getattr(owner, name)


def set_attr(obj, attr: str, value):
    """Set a nested attribute and return what was there; ATTR_UNSET stands for "no such attribute"."""
    owner, name = _owner_of(obj, attr)
    previous = getattr(owner, name, ATTR_UNSET)
    if value is ATTR_UNSET:
        delattr(owner, name)
    else:
        setattr(owner, name, value)
    return previous


def set_attr_param(obj, attr: str, value):
    """Put a tensor in the place of a parameter."""
    return set_attr(obj, attr, torch.nn.Parameter(value, requires_grad=False))


def copy_to_param(obj, attr: str, value) -> None:
    """Overwrite the content of a parameter, keeping the tensor."""
    get_attr(obj, attr).data.copy_(value)


# --- batches, masks, packed latents -----------------------------------------------------------


def repeat_to_batch_size(tensor, batch_size, dim=0):
    """Repeat or cut `tensor` along `dim` to exactly `batch_size`."""
    size = tensor.shape[dim]
    if size < batch_size:
        repeats = [1] * tensor.ndim
        repeats[dim] = math.ceil(batch_size / size)
        tensor = tensor.repeat(repeats)
    return tensor.narrow(dim, 0, batch_size) if tensor.shape[dim] > batch_size else tensor


def _spread(size: int, wanted: int) -> list[int]:
    """Which of `size` items stand for each of `wanted` evenly spread places."""
    if wanted < size:
        scale = (size - 1) / (wanted - 1)
        return [min(round(i * scale), size - 1) for i in range(wanted)]
    scale = size / wanted
    return [min(math.floor((i + 0.5) * scale), size - 1) for i in range(wanted)]


def resize_to_batch_size(tensor, batch_size):
    """Pick or repeat items along the first axis, evenly spread, to exactly `batch_size`."""
    size = tensor.shape[0]
    if size == batch_size:
        return tensor
    if batch_size <= 1:
        return tensor[:batch_size]
    return tensor[_spread(size, batch_size)]


def resize_list_to_batch_size(l, batch_size):  # noqa: E741 (upstream's parameter name)
    """`resize_to_batch_size` for a list."""
    if len(l) == batch_size or not l:
        return l
    if batch_size <= 1:
        return l[:batch_size]
    return [l[index] for index in _spread(len(l), batch_size)]


def reshape_mask(input_mask, output_shape):
    """Resize a mask to the axes of a latent of `output_shape`, with its channels and batch."""
    dims = len(output_shape) - 2
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[dims]
    if dims == 2:
        input_mask = input_mask.reshape(-1, 1, *input_mask.shape[-2:])
    elif dims == 3 and input_mask.ndim < 5:
        input_mask = input_mask.reshape(1, 1, -1, *input_mask.shape[-2:])
    mask = torch.nn.functional.interpolate(input_mask, size=tuple(output_shape[2:]), mode=mode)
    if mask.shape[1] < output_shape[1]:
        mask = mask.repeat((1, output_shape[1]) + (1,) * dims)[:, : output_shape[1]]
    return repeat_to_batch_size(mask, output_shape[0])


def pack_latents(latents):
    """Several latents as one (B, 1, N) tensor, with the shapes that `unpack_latents` needs."""
    flat = [latent.reshape(latent.shape[0], 1, -1) for latent in latents]
    return torch.cat(flat, dim=-1), [latent.shape for latent in latents]


def unpack_latents(combined_latent, latent_shapes):
    """The latents that `pack_latents` joined; the batch is the one of `combined_latent`."""
    if len(latent_shapes) <= 1:
        return [combined_latent]
    lengths = [math.prod(shape[1:]) for shape in latent_shapes]
    parts = combined_latent[:, :, : sum(lengths)].split(lengths, dim=-1)
    return [part.reshape(part.shape[0], *shape[1:]) for part, shape in zip(parts, latent_shapes, strict=True)]


def string_to_seed(data) -> int:
    """CRC-32 of a string or bytes, as a number that seeds a generator."""
    import zlib

    raw = data if isinstance(data, (bytes, bytearray)) else bytes(ord(char) & 0xFF for char in data)
    return zlib.crc32(raw)


def warn_once(message: str, _said: set[str] = set()) -> None:  # noqa: B006 (the set is the memory)
    """Log a warning the first time it is met."""
    if message not in _said:
        _said.add(message)
        logging.warning(message)
