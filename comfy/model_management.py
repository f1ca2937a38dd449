"""Which device and which precision a model uses, and which models are in its memory now.

Nothing is decided while importing: the device is looked at when it is first asked for, after the command line
has been read. Packs replace functions and flags of this module, so calls go through the module's names.
"""

import enum
import functools
import gc
import logging
import sys
import weakref

import torch

import comfy.ram
from comfy import patched_weights, placement
from comfy.cli_args import args
from comfy.errors import NotEnoughMemory
from comfy.interruption import (
    InterruptProcessingException,
    interrupt_current_processing,
    processing_interrupted,
    throw_exception_if_processing_interrupted,
)
from comfy_depot import hooks as depot

__all__ = [
    "InterruptProcessingException", "LoadedModel", "OOM_EXCEPTION", "VRAMState", "cast_to", "cast_to_device",
    "current_loaded_models", "free_memory", "get_free_memory", "get_torch_device",
    "interrupt_current_processing",
    "load_model_gpu", "load_models_gpu", "module_size", "processing_interrupted", "soft_empty_cache",
    "throw_exception_if_processing_interrupted", "unload_all_models",
]  # fmt: skip


class VRAMState(enum.Enum):
    """How much of a model may stay on the device."""

    DISABLED = 0  # there is no device but the CPU
    NO_VRAM = 1
    LOW_VRAM = 2
    NORMAL_VRAM = 3
    HIGH_VRAM = 4
    SHARED = 5  # the device uses the host's memory


class CPUState(enum.Enum):
    """What computes."""

    GPU = 0
    CPU = 1
    MPS = 2


MB = 1024 * 1024
CPU = torch.device("cpu")
OOM_EXCEPTION = torch.OutOfMemoryError
FLOAT8_TYPES = [
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
    if hasattr(torch, name)
]
# How much of a model stays on the device at most; the rest is streamed.
STREAMED_SHARES = {VRAMState.LOW_VRAM: 0.5, VRAMState.NO_VRAM: 0.0}
# Flags that packs read or set.
XFORMERS_IS_AVAILABLE = False
NUM_STREAMS = 0
MAX_PINNED_MEMORY = -1
lowvram_available = False
# The models that are in the memory of a device now, most recently used first.
current_loaded_models: list["LoadedModel"] = []


# --- the device -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _choose_cpu_state() -> CPUState:
    if args.cpu:
        return CPUState.CPU
    if torch.cuda.is_available():
        return CPUState.GPU
    if torch.backends.mps.is_available():
        return CPUState.MPS
    if torch.accelerator.is_available():
        return CPUState.GPU
    logging.info("No GPU was found; models run on the CPU.")
    return CPUState.CPU


def _choose_vram_state() -> VRAMState:
    state = _choose_cpu_state()
    if state is CPUState.CPU:
        return VRAMState.DISABLED
    if state is CPUState.MPS:
        return VRAMState.SHARED
    if args.gpu_only or args.highvram:
        return VRAMState.HIGH_VRAM
    if args.novram:
        return VRAMState.NO_VRAM
    return VRAMState.LOW_VRAM if args.lowvram else VRAMState.NORMAL_VRAM


def _reserved_for_others() -> int:
    """Bytes that are left to other programs: what was asked for, else 400 MB, of small devices less."""
    if args.reserve_vram:
        return int(args.reserve_vram * 1024 * MB)
    return min(400 * MB, get_total_memory() // 16)


# Values that packs read as module attributes, worked out from the command line and the machine when read.
_LAZY = {
    "cpu_state": _choose_cpu_state,
    "vram_state": _choose_vram_state,
    "DISABLE_SMART_MEMORY": lambda: args.disable_smart_memory,
    "EXTRA_RESERVED_VRAM": lambda: _reserved_for_others(),
    "interrupt_processing": lambda: processing_interrupted(),
    "directml_enabled": lambda: False,
    "total_vram": lambda: get_total_memory(get_torch_device()) / MB,
    "total_ram": lambda: get_total_memory(torch.device("cpu")) / MB,
}


def __getattr__(name: str):
    if name in _LAZY:
        return _LAZY[name]()
    raise AttributeError(f"module 'comfy.model_management' has no attribute '{name}'")


def _flag(name: str):
    """A flag as it stands now: what a pack has set, else what the command line says."""
    return getattr(sys.modules[__name__], name)


def get_torch_device() -> torch.device:
    """The device that diffusion models run on."""
    state = _flag("cpu_state")
    if state is CPUState.MPS:
        return torch.device("mps")
    if state is CPUState.CPU:
        return torch.device("cpu")
    kind = "cuda" if torch.cuda.is_available() else torch.accelerator.current_accelerator().type
    return torch.device(kind, torch.get_device_module(kind).current_device())


def get_torch_device_name(device) -> str:
    """A name for logs, such as `cuda:0 NVIDIA H200`."""
    device = torch.device(device)
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def is_device_type(device, type) -> bool:  # noqa: A002 (upstream's parameter name)
    return getattr(device, "type", None) == type


def is_device_cpu(device) -> bool:
    return is_device_type(device, "cpu")


def is_device_mps(device) -> bool:
    return is_device_type(device, "mps")


def is_device_xpu(device) -> bool:
    return is_device_type(device, "xpu")


def is_device_cuda(device) -> bool:
    return is_device_type(device, "cuda")


def cpu_mode() -> bool:
    return _flag("cpu_state") is CPUState.CPU


def mps_mode() -> bool:
    return _flag("cpu_state") is CPUState.MPS


def is_nvidia() -> bool:
    return _flag("cpu_state") is CPUState.GPU and bool(torch.version.cuda)


def is_amd() -> bool:
    return _flag("cpu_state") is CPUState.GPU and bool(torch.version.hip)


def is_intel_xpu() -> bool:
    return False


def is_ascend_npu() -> bool:
    return False


def is_mlu() -> bool:
    return False


def is_directml_enabled() -> bool:
    return False


def get_autocast_device(dev) -> str:
    return getattr(dev, "type", "cuda")


def unet_offload_device() -> torch.device:
    return get_torch_device() if _flag("vram_state") is VRAMState.HIGH_VRAM else torch.device("cpu")


def unet_inital_load_device(parameters, dtype) -> torch.device:
    """Where a diffusion model is built; the weights come straight there."""
    return (
        get_torch_device()
        if _flag("vram_state") in (VRAMState.HIGH_VRAM, VRAMState.SHARED)
        else torch.device("cpu")
    )


def text_encoder_device() -> torch.device:
    if args.gpu_only:
        return get_torch_device()
    if _flag("vram_state") in (VRAMState.HIGH_VRAM, VRAMState.NORMAL_VRAM) and should_use_fp16():
        return get_torch_device()
    return torch.device("cpu")


def text_encoder_offload_device() -> torch.device:
    return get_torch_device() if args.gpu_only else torch.device("cpu")


def text_encoder_initial_device(load_device, offload_device, model_size=0) -> torch.device:
    return offload_device


def vae_device() -> torch.device:
    return torch.device("cpu") if args.cpu_vae else get_torch_device()


def vae_offload_device() -> torch.device:
    return get_torch_device() if args.gpu_only else torch.device("cpu")


def intermediate_device() -> torch.device:
    """Where latents, images and conditioning rest between nodes."""
    return get_torch_device() if args.gpu_only else torch.device("cpu")


def intermediate_dtype() -> torch.dtype:
    return torch.float32


# --- precision --------------------------------------------------------------------------------


def dtype_size(dtype) -> int:
    return 4 if dtype is None else dtype.itemsize


def should_use_fp16(device=None, model_params=0, prioritize_performance=True, manual_cast=False) -> bool:
    """Can and should `device` compute in half precision?"""
    device = get_torch_device() if device is None else device
    if is_device_cpu(device):
        return False
    if args.force_fp16:
        return True
    if args.force_fp32:
        return False
    if is_device_cuda(device):
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device)[0] >= 6
    return is_device_mps(device)


def should_use_bf16(device=None, model_params=0, prioritize_performance=True, manual_cast=False) -> bool:
    """Can and should `device` compute in bfloat16?"""
    device = get_torch_device() if device is None else device
    if is_device_cpu(device) or args.force_fp32:
        return False
    return is_device_cuda(device) and torch.cuda.get_device_capability(device)[0] >= 8


_UNET_OPTIONS = {
    "fp32_unet": "float32", "fp64_unet": "float64", "bf16_unet": "bfloat16", "fp16_unet": "float16",
    "fp8_e4m3fn_unet": "float8_e4m3fn", "fp8_e5m2_unet": "float8_e5m2", "fp8_e8m0fnu_unet": "float8_e8m0fnu",
}  # fmt: skip
_TEXT_OPTIONS = {
    "fp8_e4m3fn_text_enc": "float8_e4m3fn", "fp8_e5m2_text_enc": "float8_e5m2", "fp16_text_enc": "float16",
    "bf16_text_enc": "bfloat16", "fp32_text_enc": "float32",
}  # fmt: skip
_VAE_OPTIONS = {"fp16_vae": "float16", "bf16_vae": "bfloat16", "fp32_vae": "float32"}


def _dtype_from_options(options: dict[str, str]) -> torch.dtype | None:
    return next(
        (getattr(torch, dtype) for name, dtype in options.items() if getattr(args, name, False)), None
    )


def unet_dtype(
    device=None,
    model_params=0,
    supported_dtypes=(torch.float16, torch.bfloat16, torch.float32),
    weight_dtype=None,
) -> torch.dtype:
    """The dtype that the weights of a diffusion model are kept in."""
    asked = _dtype_from_options(_UNET_OPTIONS)
    if asked is not None:
        return asked
    if weight_dtype in FLOAT8_TYPES:
        return weight_dtype
    usable = {torch.float16: should_use_fp16(device), torch.bfloat16: should_use_bf16(device)}
    if usable.get(weight_dtype) and weight_dtype in supported_dtypes:
        return weight_dtype
    return next((dtype for dtype in supported_dtypes if usable.get(dtype)), torch.float32)


def unet_manual_cast(
    weight_dtype, inference_device, supported_dtypes=(torch.float16, torch.bfloat16, torch.float32)
) -> torch.dtype | None:
    """The dtype to compute in where it is not the one of the weights; None where it is."""
    usable = {
        torch.float16: should_use_fp16(inference_device),
        torch.bfloat16: should_use_bf16(inference_device),
    }
    if weight_dtype in (torch.float32, torch.float64) or usable.get(weight_dtype):
        return None
    return next((dtype for dtype in supported_dtypes if usable.get(dtype)), torch.float32)


def text_encoder_dtype(device=None) -> torch.dtype:
    """Text encoders keep fp16 weights everywhere and compute in fp32."""
    return _dtype_from_options(_TEXT_OPTIONS) or torch.float16


def vae_dtype(device=None, allowed_dtypes=()) -> torch.dtype:
    asked = _dtype_from_options(_VAE_OPTIONS)
    if asked is not None:
        return asked
    usable = {torch.float16: should_use_fp16(device), torch.bfloat16: should_use_bf16(device)}
    return next((dtype for dtype in allowed_dtypes if usable.get(dtype)), torch.float32)


def pick_weight_dtype(dtype, fallback_dtype, device=None) -> torch.dtype:
    if dtype is None or dtype_size(dtype) > dtype_size(fallback_dtype) or not supports_cast(device, dtype):
        return fallback_dtype
    return dtype


def supports_dtype(device, dtype) -> bool:
    """Can `device` compute in `dtype`?"""
    return dtype == torch.float32 or (not is_device_cpu(device) and dtype in (torch.float16, torch.bfloat16))


def supports_cast(device, dtype) -> bool:
    """Can weights of `dtype` be kept on `device` and cast when they are used?"""
    return dtype in (torch.float32, torch.float16, torch.bfloat16) or not is_device_mps(device)


def supports_fp8_compute(device=None) -> bool:
    device = get_torch_device() if device is None else device
    return is_device_cuda(device) and torch.cuda.get_device_capability(device) >= (8, 9)


def lora_compute_dtype(device) -> torch.dtype:
    """The dtype that patches are added in."""
    return torch.float16 if should_use_fp16(device) else torch.float32


def force_channels_last() -> bool:
    return args.force_channels_last


def force_upcast_attention_dtype():
    return {torch.float16: torch.float32} if args.force_upcast_attention else None


def xformers_enabled() -> bool:
    return XFORMERS_IS_AVAILABLE


def xformers_enabled_vae() -> bool:
    return XFORMERS_IS_AVAILABLE


def pytorch_attention_enabled() -> bool:
    """torch's scaled dot product attention is what the zoo uses, always."""
    return True


def pytorch_attention_enabled_vae() -> bool:
    return True


def pytorch_attention_flash_attention() -> bool:
    return is_device_cuda(get_torch_device())


def sage_attention_enabled() -> bool:
    return args.use_sage_attention


def flash_attention_enabled() -> bool:
    return args.use_flash_attention


def device_supports_non_blocking(device) -> bool:
    return bool(args.force_non_blocking) or not (is_device_mps(device) or args.deterministic)


def device_should_use_non_blocking(device) -> bool:
    return False


def cast_to(weight, dtype=None, device=None, non_blocking=False, copy=False, stream=None):
    """`weight` on a device in a dtype; the same tensor where nothing changes, unless `copy`."""
    return weight.to(device=device, dtype=dtype, non_blocking=non_blocking, copy=copy)


def cast_to_device(tensor, device, dtype, copy=False):
    return cast_to(tensor, dtype, device, device_supports_non_blocking(device), copy)


# --- memory -----------------------------------------------------------------------------------


def has_own_memory(device) -> bool:
    """Has the device memory that is not the host's?"""
    return device.type not in ("cpu", "mps", "meta")


def memory_statistics(device) -> dict[str, int]:
    """torch's statistics of a device, such as "allocated_bytes.all.peak"; empty where there are none."""
    module = torch.get_device_module(device)
    return module.memory_stats(device) if has_own_memory(device) and hasattr(module, "memory_stats") else {}


def get_total_memory(dev=None, torch_total_too=False):
    """Bytes of memory that `dev` has."""
    dev = get_torch_device() if dev is None else dev
    if has_own_memory(dev):
        total = torch.get_device_module(dev).mem_get_info(dev)[1]
        reserved = memory_statistics(dev).get("reserved_bytes.all.current", 0)
    else:
        total = reserved = comfy.ram.read_ram().total
    return (total, reserved) if torch_total_too else total


def get_free_memory(dev=None, torch_free_too=False):
    """Bytes that can be allocated on `dev`, those that torch keeps for itself included."""
    dev = get_torch_device() if dev is None else dev
    if has_own_memory(dev):
        statistics = memory_statistics(dev)
        kept = statistics.get("reserved_bytes.all.current", 0) - statistics.get("active_bytes.all.current", 0)
        free = torch.get_device_module(dev).mem_get_info(dev)[0] + kept
    else:
        free = kept = comfy.ram.read_ram().available
    return (free, kept) if torch_free_too else free


def extra_reserved_memory() -> int:
    return _flag("EXTRA_RESERVED_VRAM") + int((args.vram_headroom or 0) * 1024 * MB)


def minimum_inference_memory() -> float:
    """What a run needs on the device besides the weights, as a lower bound."""
    return min(0.8 * 1024 * MB, get_total_memory() / 8) + extra_reserved_memory()


def maximum_vram_for_weights(device=None) -> float:
    return get_total_memory(device) * 0.88 - minimum_inference_memory()


def refuse_what_can_never_fit(bytes_needed, what: str) -> None:
    """Raises where `what` needs more host memory than there is: Linux would end the server for it."""
    total = get_total_memory(torch.device("cpu"))
    if bytes_needed > total:
        raise ValueError(
            f"{what} need about {bytes_needed / 1024**3:,.0f} GB of memory, and this machine has "
            f"{total / 1024**3:.0f}. Make the batch or the picture smaller."
        )


def module_size(module) -> int:
    """Bytes of a module's weights."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def soft_empty_cache(force=False) -> None:
    """Give memory that torch keeps but does not use back to the device."""
    if mps_mode():
        torch.mps.empty_cache()
    elif _flag("cpu_state") is CPUState.GPU:
        module = torch.get_device_module(get_torch_device())
        module.synchronize()
        module.empty_cache()
        if is_device_cuda(get_torch_device()):
            module.ipc_collect()


def is_oom(error: BaseException) -> bool:
    """Is this a device that ran out of memory? CPU allocations fail with a plain RuntimeError."""
    if isinstance(error, (OOM_EXCEPTION, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in str(error) or "out of memory" in str(error)
    )


class LoadedModel:
    """A ModelPatcher whose model is in the memory of its device. The patcher itself is not kept alive."""

    def __init__(self, model):
        self._set_model(model)
        self.device = model.load_device
        self.real_model = None
        self.currently_used = True

    def _set_model(self, model) -> None:
        self._model = weakref.ref(model)
        # A clone that goes away leaves the place to the patcher that it was cloned from, or to that one's.
        ancestors, parent = [], model.parent
        while parent is not None:
            ancestors.append(weakref.ref(parent))
            parent = parent.parent
        if ancestors:
            weakref.finalize(model, self._switch_to, ancestors).atexit = False

    def _switch_to(self, ancestors) -> None:
        alive = next((one for ancestor in ancestors if (one := ancestor()) is not None), None)
        if self._model() is None and alive is not None:
            self._set_model(alive)

    @property
    def model(self):
        return self._model()

    def model_memory(self) -> int:
        return self.model.model_size()

    def model_loaded_memory(self) -> int:
        return self.model.loaded_size()

    def model_offloaded_memory(self) -> int:
        return self.model.model_size() - self.model.loaded_size()

    def model_memory_required(self, device) -> int:
        return (
            self.model_offloaded_memory()
            if device == self.model.current_loaded_device()
            else self.model_memory()
        )

    def model_load(self, lowvram_model_memory=0, force_patch_weights=False):
        """Bring the model to the device with its patches applied."""
        self.model.model_patches_to(self.device)
        self.model.model_patches_to(self.model.model_dtype())
        self.model_use_more_vram(lowvram_model_memory or 1e32, force_patch_weights=force_patch_weights)
        self.real_model = weakref.ref(self.model.model)
        return self.model.model

    def model_use_more_vram(self, extra_memory, force_patch_weights=False):
        return self.model.partially_load(self.device, extra_memory, force_patch_weights=force_patch_weights)

    def model_place(self, bytes_there: int, force_patch_weights=False) -> None:
        """Have so many bytes of the model on the device, with its patches applied; the rest is streamed."""
        model = self.model
        if 0 < bytes_there < model.loaded_size() and model.current_loaded_device() == self.device:
            model.partially_unload(CPU, model.loaded_size() - bytes_there)
        missing = bytes_there - (model.loaded_size() if model.current_loaded_device() == self.device else 0)
        self.model_load(max(1, missing) if bytes_there < model.model_size() else 0, force_patch_weights)

    def should_reload_model(self, force_patch_weights=False) -> bool:
        return force_patch_weights and self.model.lowvram_patch_counter() > 0

    @depot.keeps_pinned
    def model_unload(self, memory_to_free=None, unpatch_weights=True) -> bool:
        """Take the model off the device; False where it stays.

        With `--gpu-only` a model rests on the device, but when that is full it must go to host memory.
        """
        self.model.detach(unpatch_weights)
        if self.model.offload_device == self.device and has_own_memory(self.device):
            self.model.unpatch_model(CPU)
        self.real_model = None
        return True

    def is_dead(self) -> bool:
        """Is the model still alive although nobody holds its patcher any more?"""
        return self.model is None and self.real_model is not None and self.real_model() is not None

    def __eq__(self, other) -> bool:
        return isinstance(other, LoadedModel) and self.model is other.model

    __hash__ = None


def _standing(model, device, last_used: float = 0.0) -> placement.Standing:
    """What counts of a model (a patcher) when the device is full."""
    there = model.loaded_size() if model.current_loaded_device() == device else 0
    shared = model.model
    return placement.Standing(
        id(model), model.model_size(), there, shared.seconds_to_place, last_used, bool(shared.is_pinned)
    )


def cleanup_models() -> None:
    """Forget models that nobody holds any more."""
    current_loaded_models[:] = [loaded for loaded in current_loaded_models if loaded.model is not None]


def cleanup_models_gc() -> None:
    """`cleanup_models`, after collecting those that only a reference cycle keeps alive."""
    if any(loaded.is_dead() for loaded in current_loaded_models):
        gc.collect()
        soft_empty_cache()
    for loaded in current_loaded_models:
        if loaded.is_dead():
            name = type(loaded.real_model()).__name__
            logging.warning(
                "%s is still in memory although nothing uses it: something keeps a reference.", name
            )
    cleanup_models()


def loaded_models(only_currently_used=False) -> list:
    """The patchers that are in the memory of a device."""
    return [
        loaded.model for loaded in current_loaded_models
        if loaded.model is not None and (loaded.currently_used or not only_currently_used)
    ]  # fmt: skip


@depot.makes_room
def free_memory(memory_required, device, keep_loaded=(), **_newer) -> list:
    """Unload models, least recently used first, until `memory_required` bytes are free on `device`."""
    cleanup_models_gc()
    if patched_weights.bytes_kept():
        patched_weights.release_bytes(memory_required - get_free_memory(device), device)
    unloaded: list[LoadedModel] = []
    while (loaded := _next_to_leave(memory_required, device, [*keep_loaded, *unloaded])) is not None:
        loaded.currently_used = False
        unloaded.append(loaded)
        if loaded.model_unload():
            current_loaded_models[:] = [other for other in current_loaded_models if other is not loaded]
        else:
            keep_loaded = [*keep_loaded, unloaded.pop()]
    if unloaded:
        logging.info("Freed %s for %.0f MB: unloaded %d models.", device, memory_required / MB, len(unloaded))
        soft_empty_cache()
    return unloaded


def _next_to_leave(memory_required, device, staying) -> LoadedModel | None:
    """The model that goes next, as long as less is free than required. Asked anew after each: what a model
    gives back is not always what it takes.
    """
    others = [
        loaded for loaded in reversed(current_loaded_models)
        if loaded.device == device and loaded.model is not None and loaded not in staying
    ]  # fmt: skip
    if not others:
        return None
    free = get_free_memory(device)
    if free > memory_required and not _flag("DISABLE_SMART_MEMORY"):
        return None
    standings = [_standing(loaded.model, device, place) for place, loaded in enumerate(others)]
    to_run = max(memory_required, free + 1)
    leaving = placement.plan_placement([], standings, placement.Room(free, to_run)).leaving
    return next((loaded for loaded in others if leaving and id(loaded.model) == leaving[0]), None)


def _wanted_models(models) -> list:
    """The given patchers and those that their patches bring along, each once, in order."""
    wanted = {id(model): model for model in models}
    for model in list(wanted.values()):
        wanted.update((id(other), other) for other in model.model_patches_models())
    return list(wanted.values())


def _take_out(model) -> None:
    """Remove every entry of this patcher and of its clones; another set of patches takes their place."""
    for loaded in [
        loaded for loaded in current_loaded_models if loaded.model and model.is_clone(loaded.model)
    ]:
        current_loaded_models[:] = [other for other in current_loaded_models if other is not loaded]
        if loaded.model is not model:
            loaded.model.detach(unpatch_all=False)


@depot.places_models
def load_models_gpu(
    models, memory_required=0, force_patch_weights=False, minimum_memory_required=None, force_full_load=False
) -> None:
    """Bring models to their devices, unloading others when there is not enough memory for them."""
    cleanup_models_gc()
    wanted = _wanted_models(models)
    stay: dict[int, int] = {}
    for device in dict.fromkeys(model.load_device for model in wanted):
        here = [model for model in wanted if model.load_device == device]
        if has_own_memory(device):
            stay.update(_make_room(here, device, memory_required, minimum_memory_required, force_full_load))
    for model in wanted:
        _take_out(model)
        loaded = LoadedModel(model)
        _place(loaded, stay.get(id(model), model.model_size()), force_patch_weights, force_full_load)
        current_loaded_models.insert(0, loaded)


def _place(loaded: LoadedModel, bytes_there: int, force_patch_weights, is_whole) -> None:
    """Bring a model to its device: less of it, where the device turns out to be fuller than it said."""
    model = loaded.model
    is_whole = is_whole or model.model.is_pinned or _flag("vram_state") is VRAMState.HIGH_VRAM
    while not _is_placed(loaded, bytes_there, force_patch_weights, may_fail=is_whole or bytes_there < MB):
        bytes_there //= 2
        soft_empty_cache()
    if model.model.model_lowvram:
        there, size = model.loaded_size() / MB, model.model_size() / MB
        logging.info("%s: %.0f of %.0f MB stay on %s, the rest is streamed.",
                     type(model.model).__name__, there, size, loaded.device)  # fmt: skip


def _is_placed(loaded: LoadedModel, bytes_there: int, force_patch_weights, *, may_fail: bool) -> bool:
    try:
        loaded.model_place(bytes_there, force_patch_weights)
    except OOM_EXCEPTION:
        if may_fail:
            raise
        logging.warning("%s is full; less of the model will stay there.", loaded.device)
        return False
    return True


def _make_room(models, device, to_run, least_to_run, is_whole) -> dict[int, int]:
    """Unload what must leave `device` for these models; {id of a patcher: bytes of it that stay there}.

    Raises:
        NotEnoughMemory: models that may not be streamed do not fit beside those that may not leave.
    """
    for loaded in current_loaded_models:
        if loaded.model is not None:
            loaded.model.rest()
    standings = [_standing(model, device) for model in models]
    extra = extra_reserved_memory()
    to_run = max(minimum_inference_memory(), to_run + extra)
    least = min(to_run, (to_run if least_to_run is None else least_to_run) + extra)
    missing = sum(one.size - one.on_device for one in standings)
    keep = [loaded for loaded in current_loaded_models if any(m.is_clone(loaded.model) for m in models)]
    if missing + to_run > get_free_memory(device) or _flag("DISABLE_SMART_MEMORY"):
        free_memory(missing * 1.05 + to_run, device, keep_loaded=keep)  # allocators round sizes up
    state = _flag("vram_state")
    plan = placement.plan_placement(
        standings, [], placement.Room(get_free_memory(device), to_run, least),
        share=STREAMED_SHARES.get(state, 1.0), is_whole=is_whole or state is VRAMState.HIGH_VRAM,
    )  # fmt: skip
    if plan.bytes_missing:
        raise NotEnoughMemory(_too_large(models, device, plan.bytes_missing))
    return plan.resident


def _too_large(models, device, bytes_missing: int) -> str:
    names = ", ".join(f"{type(m.model).__name__} ({m.model_size() / 1e9:.2f} GB)" for m in models)
    return (
        f"{names} must be on {device} as a whole, and {bytes_missing / 1e9:.2f} GB are missing there. Use "
        "smaller models, or free memory there. Without --gpu-only and --highvram the rest would be streamed."
    )


def load_model_gpu(model) -> None:
    """`load_models_gpu` for one."""
    return sys.modules[__name__].load_models_gpu([model])


def unload_all_models() -> None:
    """Take every model off its device."""
    for device in {loaded.device for loaded in current_loaded_models}:
        free_memory(1e30, device)


def unload_model_clones(model, unload_weights_only=True, force_unload=True) -> bool:
    """Take other views of the same model off their device; was there one? Packs of earlier days call it."""
    views = [loaded for loaded in current_loaded_models if loaded.model and model.is_clone(loaded.model)]
    for loaded in views:
        loaded.model_unload()
        current_loaded_models.remove(loaded)
    return bool(views)


def pin_memory(tensor) -> bool:
    """Page-locked host memory is not used here: weights stay memory-mapped."""
    return False


def unpin_memory(tensor) -> bool:
    return False


def debug_memory_summary() -> str:
    return torch.cuda.memory_summary() if is_device_cuda(get_torch_device()) else ""
