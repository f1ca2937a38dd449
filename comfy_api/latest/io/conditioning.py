"""The options that a conditioning carries, for annotations."""

from __future__ import annotations

from typing import Any, TypedDict


class _Pooled(TypedDict):
    pooled_output: Any


class PooledDict(_Pooled, total=False):
    """What an embedding applies to and how, and what single models ask for. Percents are 0..1 of sampling.

    `area` is (height, width, y, x) in latent pixels, or ("percentage", height, width, y, x).
    """

    control: Any
    control_apply_to_uncond: bool
    cross_attn_controlnet: Any
    pooled_output_controlnet: Any
    gligen: tuple[str, Any, list[Any]]
    area: tuple[Any, ...]
    strength: float
    mask: Any
    mask_strength: float
    set_area_to_bounds: bool
    concat_latent_image: Any
    concat_mask: Any
    concat_image: Any
    noise_augmentation: float
    hooks: Any
    default: bool
    start_percent: float
    end_percent: float
    clip_start_percent: float
    clip_end_percent: float
    attention_mask: Any
    attention_mask_img_shape: tuple[int, ...]
    unclip_conditioning: list[dict[str, Any]]
    conditioning_lyrics: Any
    seconds_start: float
    seconds_total: float
    lyrics_strength: float
    width: int
    height: int
    aesthetic_score: float
    crop_w: int
    crop_h: int
    target_width: int
    target_height: int
    reference_latents: list[Any]
    guidance: float
    guiding_frame_index: int
    ref_latent: Any
    keyframe_idxs: list[int]
    frame_rate: float
    stable_cascade_prior: Any
    elevation: list[float]
    azimuth: list[float]
    motion_bucket_id: int
    fps: int
    augmentation_level: float
    clip_vision_output: Any
    vace_frames: Any
    vace_mask: Any
    vace_strength: float
    camera_conditions: Any
    time_dim_concat: Any
    time_dim_replace: Any


CondList = list[tuple[Any, PooledDict]]
