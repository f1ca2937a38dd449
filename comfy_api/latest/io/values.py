"""Kinds of values that only travel along links: pictures, latents, models, and so on.

`Type` is the Python type where one class stands for it; tensors are imported when `Type` is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from comfy_api.internal import lazy_attribute
from comfy_api.latest._util.geometry_types import MESH, SPLAT, VOXEL
from comfy_api.latest._util.image_types import SVG as _SVG
from comfy_api.latest.io.conditioning import CondList as _CondList
from comfy_api.latest.io.conditioning import PooledDict as _PooledDict
from comfy_api.latest.io.kinds import ComfyTypeIO, comfytype


@comfytype(io_type="*")
class AnyType(ComfyTypeIO):
    """Any value."""


@comfytype(io_type="IMAGE")
class Image(ComfyTypeIO):
    """Pictures (B, H, W, C), values 0..1."""

    Type = lazy_attribute("torch", "Tensor")


@comfytype(io_type="WAN_CAMERA_EMBEDDING")
class WanCameraEmbedding(ComfyTypeIO):
    """The path of a camera, for Wan models."""

    Type = lazy_attribute("torch", "Tensor")


@comfytype(io_type="MASK")
class Mask(ComfyTypeIO):
    """Masks (B, H, W), values 0..1."""

    Type = lazy_attribute("torch", "Tensor")


class _LatentSamples(TypedDict):
    samples: Any


@comfytype(io_type="LATENT")
class Latent(ComfyTypeIO):
    """Latents and what belongs to them."""

    class LatentDict(_LatentSamples, total=False):
        """`samples` (B, C, H, W); `type` for audio and 3D latents."""

        noise_mask: Any
        batch_index: list[int]
        type: str

    Type = LatentDict


@comfytype(io_type="CONDITIONING")
class Conditioning(ComfyTypeIO):
    """What a model is to follow: a list of (embedding, options)."""

    PooledDict = _PooledDict
    CondList = _CondList
    Type = _CondList


@comfytype(io_type="SAMPLER")
class Sampler(ComfyTypeIO):
    """A sampling method."""


@comfytype(io_type="SIGMAS")
class Sigmas(ComfyTypeIO):
    """Noise levels, falling."""

    Type = lazy_attribute("torch", "Tensor")


@comfytype(io_type="NOISE")
class Noise(ComfyTypeIO):
    """A source of noise."""

    Type = lazy_attribute("torch", "Tensor")


@comfytype(io_type="GUIDER")
class Guider(ComfyTypeIO):
    """Combines a model with what it is to follow."""


@comfytype(io_type="CLIP")
class Clip(ComfyTypeIO):
    """A text encoder."""


@comfytype(io_type="CONTROL_NET")
class ControlNet(ComfyTypeIO):
    """A network that steers another one."""


@comfytype(io_type="VAE")
class Vae(ComfyTypeIO):
    """Turns pictures into latents and back."""


@comfytype(io_type="MODEL")
class Model(ComfyTypeIO):
    """A diffusion model with its patches."""


@comfytype(io_type="BACKGROUND_REMOVAL")
class BackgroundRemoval(ComfyTypeIO):
    """A model that finds what is in front."""


@comfytype(io_type="CLIP_VISION")
class ClipVision(ComfyTypeIO):
    """An encoder of pictures."""


@comfytype(io_type="CLIP_VISION_OUTPUT")
class ClipVisionOutput(ComfyTypeIO):
    """Pictures as an encoder sees them."""


@comfytype(io_type="STYLE_MODEL")
class StyleModel(ComfyTypeIO):
    """Turns encoded pictures into conditioning."""


@comfytype(io_type="GLIGEN")
class Gligen(ComfyTypeIO):
    """A model that places what texts name."""


@comfytype(io_type="UPSCALE_MODEL")
class UpscaleModel(ComfyTypeIO):
    """A model that makes pictures larger."""


@comfytype(io_type="LATENT_UPSCALE_MODEL")
class LatentUpscaleModel(ComfyTypeIO):
    """A model that makes latents larger."""


@comfytype(io_type="AUDIO")
class Audio(ComfyTypeIO):
    """Sound."""

    class AudioDict(TypedDict):
        """`waveform` (B, C, T)."""

        waveform: Any
        sample_rate: int

    Type = AudioDict


@comfytype(io_type="VIDEO")
class Video(ComfyTypeIO):
    """A video, in a file or as pictures and sound."""


@comfytype(io_type="SVG")
class SVG(ComfyTypeIO):
    """Vector graphics."""

    Type = _SVG


@comfytype(io_type="LORA_MODEL")
class LoraModel(ComfyTypeIO):
    """Weights of a LoRA by name."""

    Type = dict


@comfytype(io_type="LOSS_MAP")
class LossMap(ComfyTypeIO):
    """Losses of a training."""

    class LossMapDict(TypedDict):
        """One tensor per step."""

        loss: list[Any]

    Type = LossMapDict


@comfytype(io_type="VOXEL")
class Voxel(ComfyTypeIO):
    """Volumes."""

    Type = VOXEL


@comfytype(io_type="MESH")
class Mesh(ComfyTypeIO):
    """Surfaces of triangles."""

    Type = MESH


@comfytype(io_type="SPLAT")
class Splat(ComfyTypeIO):
    """Gaussian splats."""

    Type = SPLAT


@comfytype(io_type="HOOKS")
class Hooks(ComfyTypeIO):
    """Changes of weights while sampling."""


@comfytype(io_type="HOOK_KEYFRAMES")
class HookKeyframes(ComfyTypeIO):
    """When hooks are how strong."""


@comfytype(io_type="TIMESTEPS_RANGE")
class TimestepsRange(ComfyTypeIO):
    """Start and end of a part of sampling, 0..1."""

    Type = tuple[int, int]


@comfytype(io_type="LATENT_OPERATION")
class LatentOperation(ComfyTypeIO):
    """A function from latents to latents."""

    Type = Callable[[Any], Any]


@comfytype(io_type="FLOW_CONTROL")
class FlowControl(ComfyTypeIO):
    """Ties the ends of a loop together."""

    Type = tuple[str, Any]


@comfytype(io_type="ACCUMULATION")
class Accumulation(ComfyTypeIO):
    """Values that a loop has gathered."""

    class AccumulationDict(TypedDict):
        """The values, in their order."""

        accum: list[Any]

    Type = AccumulationDict


@comfytype(io_type="PHOTOMAKER")
class Photomaker(ComfyTypeIO):
    """A PhotoMaker model."""


@comfytype(io_type="POINT")
class Point(ComfyTypeIO):
    """A point in a picture."""


@comfytype(io_type="FACE_ANALYSIS")
class FaceAnalysis(ComfyTypeIO):
    """A model that finds faces."""


@comfytype(io_type="BBOX")
class BBOX(ComfyTypeIO):
    """A rectangle around something found."""


@comfytype(io_type="SEGS")
class SEGS(ComfyTypeIO):
    """Parts of a picture."""


@comfytype(io_type="MODEL_PATCH")
class ModelPatch(ComfyTypeIO):
    """Weights that are added to a model."""


@comfytype(io_type="AUDIO_ENCODER")
class AudioEncoder(ComfyTypeIO):
    """An encoder of sound."""


@comfytype(io_type="AUDIO_ENCODER_OUTPUT")
class AudioEncoderOutput(ComfyTypeIO):
    """Sound as an encoder hears it."""


@comfytype(io_type="TRACKS")
class Tracks(ComfyTypeIO):
    """Points that move."""

    class TrackDict(TypedDict):
        """Places, and whether they are seen."""

        track_path: Any
        track_visibility: Any

    Type = TrackDict


@comfytype(io_type="DICT")
class Dict(ComfyTypeIO):
    """A dictionary."""

    Type = dict


@comfytype(io_type="ARRAY")
class Array(ComfyTypeIO):
    """A list, as one value."""

    Type = list


@comfytype(io_type="LAYERS")
class Layers(ComfyTypeIO):
    """Pictures that lie on one another."""

    class _Raster(TypedDict):
        image: Any
        type: str
        z_index: int

    class LayerItem(_Raster, total=False):
        """A picture, its place and how it is laid on those below. `blend_mode` as in style sheets."""

        x: int
        y: int
        w: int
        h: int
        mask: Any
        name: str
        opacity: float
        blend_mode: str
        visible: bool
        flip_h: bool
        flip_v: bool
        rotation: float

    class Document(TypedDict, total=False):
        """All layers; `canvas` is (width, height)."""

        version: int
        canvas: tuple[int, int]
        layers: list[Any]

    Type = Document
