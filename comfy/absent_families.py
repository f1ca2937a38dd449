"""Model families that node packs name and that do not run here: classes to subclass and to compare with.

Each has the published numbers of its family. To build a model of one raises FamilyAbsent, which says so. A
family that comes to run here has classes of its own, which are found before these.
"""

from __future__ import annotations

import torch

import comfy.latent_formats
from comfy.errors import FamilyAbsent

BF16 = [torch.bfloat16, torch.float32]
BF16_FP16 = [torch.bfloat16, torch.float16, torch.float32]
FP16_BF16 = [torch.float16, torch.bfloat16, torch.float32]
FP16_FP32 = [torch.float16, torch.float32]

# fmt: off
# Classes of comfy.model_base, and what each is a subclass of there.
MODEL_BASES: dict[str, str] = {
    "SVD_img2vid": "BaseModel", "SV3D_u": "SVD_img2vid", "SV3D_p": "SVD_img2vid",
    "Stable_Zero123": "BaseModel", "SD_X4Upscaler": "BaseModel", "SD15_instructpix2pix": "BaseModel",
    "SDXL_instructpix2pix": "SDXL", "Lotus": "BaseModel", "StableCascade_C": "BaseModel",
    "StableCascade_B": "BaseModel", "SD3": "BaseModel", "AuraFlow": "BaseModel",
    "StableAudio1": "BaseModel", "StableAudio3": "BaseModel", "HunyuanDiT": "BaseModel",
    "SeedVR2": "BaseModel", "PixArt": "BaseModel", "LongCatImage": "Flux", "Flux2": "Flux",
    "Lens": "BaseModel", "GenmoMochi": "BaseModel", "LTXV": "BaseModel", "LTXAV": "BaseModel",
    "HunyuanVideo": "BaseModel", "HunyuanVideoI2V": "HunyuanVideo",
    "HunyuanVideoSkyreelsI2V": "HunyuanVideo", "CosmosVideo": "BaseModel", "CosmosPredict2": "BaseModel",
    "Anima": "BaseModel", "ZImagePixelSpace": "Lumina2", "PixelDiTT2I": "BaseModel", "PiD": "PixelDiTT2I",
    "WAN21": "BaseModel", "WAN21_CausalAR": "WAN21", "WAN21_Vace": "WAN21", "WAN21_Camera": "WAN21",
    "WAN21_HuMo": "WAN21", "WAN22_Animate": "WAN21", "WAN_Animate2": "WAN21", "WAN22_S2V": "WAN21",
    "WAN22": "WAN21", "Trellis2": "BaseModel", "WAN21_FlowRVS": "WAN21", "WAN21_SCAIL": "WAN21",
    "WAN21_SCAIL2": "WAN21_SCAIL", "WAN22_WanDancer": "WAN21", "Hunyuan3Dv2": "BaseModel",
    "Hunyuan3Dv2_1": "BaseModel", "MiniMaxH3": "BaseModel", "TripoSplat": "BaseModel",
    "HiDream": "BaseModel", "HiDreamO1": "BaseModel", "Chroma": "Flux", "ChromaRadiance": "Chroma",
    "ACEStep": "BaseModel", "ACEStep15": "BaseModel", "MiniMaxMusic3": "BaseModel",
    "Omnigen2": "BaseModel", "Boogu": "Omnigen2", "QwenImage": "BaseModel", "MageFlow": "QwenImage",
    "JoyImage": "BaseModel", "Ideogram4": "BaseModel", "Krea2": "BaseModel", "HunyuanImage21": "BaseModel",
    "HunyuanImage21Refiner": "HunyuanImage21", "HunyuanVideo15": "HunyuanVideo",
    "HunyuanVideo15_SR_Distilled": "HunyuanVideo15", "Kandinsky5": "BaseModel",
    "Kandinsky5Image": "Kandinsky5", "RT_DETR_v4": "BaseModel", "DepthAnything3": "BaseModel",
    "ErnieImage": "BaseModel", "SAM3": "BaseModel", "CogVideoX": "BaseModel",
}


def _config(name, base, model=None, **numbers):
    return name, (base, model, numbers)


# Classes of comfy.supported_models: (name, base, class of comfy.model_base, numbers).
CONFIGS: dict[str, tuple] = dict([
    _config(
        "SSD1B", "SDXL", None,
        unet_config={"model_channels": 320, "use_linear_in_transformer": True, "transformer_depth": [0, 0,
            2, 2, 4, 4], "context_dim": 2048, "adm_in_channels": 2816, "use_temporal_attention": False},
    ),
    _config(
        "Segmind_Vega", "SDXL", None,
        unet_config={"model_channels": 320, "use_linear_in_transformer": True, "transformer_depth": [0, 0,
            1, 1, 2, 2], "context_dim": 2048, "adm_in_channels": 2816, "use_temporal_attention": False},
    ),
    _config(
        "KOALA_700M", "SDXL", None,
        unet_config={"model_channels": 320, "use_linear_in_transformer": True, "transformer_depth": [0, 2,
            5], "context_dim": 2048, "adm_in_channels": 2816, "use_temporal_attention": False},
    ),
    _config(
        "KOALA_1B", "SDXL", None,
        unet_config={"model_channels": 320, "use_linear_in_transformer": True, "transformer_depth": [0, 2,
            6], "context_dim": 2048, "adm_in_channels": 2816, "use_temporal_attention": False},
    ),
    _config(
        "SVD_img2vid", "BASE", "SVD_img2vid",
        unet_config={"model_channels": 320, "in_channels": 8, "use_linear_in_transformer": True,
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "context_dim": 1024, "adm_in_channels": 768,
            "use_temporal_attention": True, "use_temporal_resblock": True},
        unet_extra_config={"num_heads": -1, "num_head_channels": 64, "attn_precision": torch.float32},
        sampling_settings={"sigma_max": 700.0, "sigma_min": 0.002}, latent_format="SD15",
    ),
    _config(
        "SV3D_u", "SVD_img2vid", "SV3D_u",
        unet_config={"model_channels": 320, "in_channels": 8, "use_linear_in_transformer": True,
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "context_dim": 1024, "adm_in_channels": 256,
            "use_temporal_attention": True, "use_temporal_resblock": True},
        vae_key_prefix=["conditioner.embedders.1.encoder."],
    ),
    _config(
        "SV3D_p", "SV3D_u", "SV3D_p",
        unet_config={"model_channels": 320, "in_channels": 8, "use_linear_in_transformer": True,
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "context_dim": 1024, "adm_in_channels": 1280,
            "use_temporal_attention": True, "use_temporal_resblock": True},
    ),
    _config(
        "Stable_Zero123", "BASE", "Stable_Zero123",
        unet_config={"context_dim": 768, "model_channels": 320, "use_linear_in_transformer": False,
            "adm_in_channels": None, "use_temporal_attention": False, "in_channels": 8},
        unet_extra_config={"num_heads": 8, "num_head_channels": -1},
        required_keys={"cc_projection.weight": None, "cc_projection.bias": None}, latent_format="SD15",
    ),
    _config(
        "SD_X4Upscaler", "SD20", "SD_X4Upscaler",
        unet_config={"context_dim": 1024, "model_channels": 256, "in_channels": 7,
            "use_linear_in_transformer": True, "adm_in_channels": None, "use_temporal_attention": False},
        unet_extra_config={"disable_self_attentions": [True, True, True, False], "num_classes": 1000,
            "num_heads": 8, "num_head_channels": -1},
        sampling_settings={"linear_start": 0.0001, "linear_end": 0.02}, latent_format="SD_X4",
    ),
    _config(
        "Stable_Cascade_C", "BASE", "StableCascade_C", unet_config={"stable_cascade_stage": "c"},
        unet_extra_config={}, sampling_settings={"shift": 2.0}, supported_inference_dtypes=BF16,
        vae_key_prefix=["vae."], text_encoder_key_prefix=["text_encoder."], latent_format="SC_Prior",
    ),
    _config(
        "Stable_Cascade_B", "Stable_Cascade_C", "StableCascade_B",
        unet_config={"stable_cascade_stage": "b"}, sampling_settings={"shift": 1.0},
        supported_inference_dtypes=FP16_BF16, latent_format="SC_B",
    ),
    _config(
        "SD15_instructpix2pix", "SD15", "SD15_instructpix2pix",
        unet_config={"context_dim": 768, "model_channels": 320, "use_linear_in_transformer": False,
            "adm_in_channels": None, "use_temporal_attention": False, "in_channels": 8},
    ),
    _config(
        "SDXL_instructpix2pix", "SDXL", "SDXL_instructpix2pix",
        unet_config={"model_channels": 320, "use_linear_in_transformer": True, "transformer_depth": [0, 0,
            2, 2, 10, 10], "context_dim": 2048, "adm_in_channels": 2816, "use_temporal_attention": False,
            "in_channels": 8},
    ),
    _config(
        "LotusD", "SD20", "Lotus",
        unet_config={"model_channels": 320, "use_linear_in_transformer": True, "use_temporal_attention":
            False, "adm_in_channels": 4, "in_channels": 4},
        unet_extra_config={"num_classes": "sequential", "num_head_channels": 64},
    ),
    _config(
        "SD3", "BASE", "SD3", unet_config={"in_channels": 16, "pos_embed_scaling_factor": None},
        unet_extra_config={}, sampling_settings={"shift": 3.0}, memory_usage_factor=1.6,
        text_encoder_key_prefix=["text_encoders."], latent_format="SD3",
    ),
    _config(
        "StableAudio", "BASE", "StableAudio1", unet_config={"audio_model": "dit1.0"}, unet_extra_config={},
        sampling_settings={"sigma_max": 500.0, "sigma_min": 0.03}, vae_key_prefix=["pretransform.model."],
        text_encoder_key_prefix=["text_encoders."], latent_format="StableAudio1",
    ),
    _config(
        "StableAudio3", "StableAudio", "StableAudio3",
        unet_config={"audio_model": "dit1.0", "global_cond_shared_embed": True},
        sampling_settings={"multiplier": 1.0, "shift": 2.0}, memory_usage_factor=7,
        latent_format="StableAudio3",
    ),
    _config(
        "AuraFlow", "BASE", "AuraFlow", unet_config={"cond_seq_dim": 2048}, unet_extra_config={},
        sampling_settings={"multiplier": 1.0, "shift": 1.73}, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="SDXL",
    ),
    _config(
        "PixArtAlpha", "BASE", "PixArt", unet_config={"image_model": "pixart_alpha"}, unet_extra_config={},
        sampling_settings={"beta_schedule": "sqrt_linear", "linear_start": 0.0001, "linear_end": 0.02,
            "timesteps": 1000},
        memory_usage_factor=0.5, vae_key_prefix=["vae."], text_encoder_key_prefix=["text_encoders."],
        latent_format="SD15",
    ),
    _config(
        "PixArtSigma", "PixArtAlpha", None, unet_config={"image_model": "pixart_sigma"},
        latent_format="SDXL",
    ),
    _config(
        "HunyuanDiT", "BASE", "HunyuanDiT", unet_config={"image_model": "hydit"},
        unet_extra_config={"attn_precision": torch.float32},
        sampling_settings={"linear_start": 0.00085, "linear_end": 0.018}, memory_usage_factor=1.3,
        vae_key_prefix=["vae."], text_encoder_key_prefix=["text_encoders."], latent_format="SDXL",
    ),
    _config(
        "HunyuanDiT1", "HunyuanDiT", None, unet_config={"image_model": "hydit1"}, unet_extra_config={},
        sampling_settings={"linear_start": 0.00085, "linear_end": 0.03},
    ),
    _config(
        "Flux2", "Flux", "Flux2", unet_config={"image_model": "flux2"}, sampling_settings={"shift": 2.02},
        latent_format="Flux2",
    ),
    _config(
        "Lens", "BASE", "Lens", unet_config={"image_model": "lens"}, unet_extra_config={},
        sampling_settings={"shift": 1.829}, memory_usage_factor=4.0, supported_inference_dtypes=BF16,
        vae_key_prefix=["vae."], text_encoder_key_prefix=["text_encoders."], latent_format="Flux2",
    ),
    _config(
        "GenmoMochi", "BASE", "GenmoMochi", unet_config={"image_model": "mochi_preview"},
        unet_extra_config={}, sampling_settings={"multiplier": 1.0, "shift": 6.0},
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Mochi",
    ),
    _config(
        "LTXV", "BASE", "LTXV", unet_config={"image_model": "ltxv"}, unet_extra_config={},
        sampling_settings={"shift": 2.37}, memory_usage_factor=5.5, supported_inference_dtypes=BF16,
        vae_key_prefix=["vae."], text_encoder_key_prefix=["text_encoders."], latent_format="LTXV",
    ),
    _config("LTXAV", "LTXV", "LTXAV", unet_config={"image_model": "ltxav"}, latent_format="LTXAV"),
    _config(
        "MiniMaxH3", "BASE", "MiniMaxH3", unet_config={"image_model": "minimax_h3"}, unet_extra_config={},
        sampling_settings={"shift": 12.0, "audio_shift": 3.0}, memory_usage_factor=0.114,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="MiniMaxH3AV",
    ),
    _config(
        "HunyuanVideo", "BASE", "HunyuanVideo", unet_config={"image_model": "hunyuan_video"},
        unet_extra_config={}, sampling_settings={"shift": 7.0}, memory_usage_factor=1.8,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="HunyuanVideo",
    ),
    _config(
        "HunyuanVideoI2V", "HunyuanVideo", "HunyuanVideoI2V",
        unet_config={"image_model": "hunyuan_video", "in_channels": 33},
    ),
    _config(
        "HunyuanVideoSkyreelsI2V", "HunyuanVideo", "HunyuanVideoSkyreelsI2V",
        unet_config={"image_model": "hunyuan_video", "in_channels": 32},
    ),
    _config(
        "CosmosT2V", "BASE", "CosmosVideo", unet_config={"image_model": "cosmos", "in_channels": 16},
        unet_extra_config={}, sampling_settings={"sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002},
        memory_usage_factor=1.6, supported_inference_dtypes=BF16_FP16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Cosmos1CV8x8x8",
    ),
    _config(
        "CosmosI2V", "CosmosT2V", "CosmosVideo", unet_config={"image_model": "cosmos", "in_channels": 17},
    ),
    _config(
        "CosmosT2IPredict2", "BASE", "CosmosPredict2",
        unet_config={"image_model": "cosmos_predict2", "in_channels": 16}, unet_extra_config={},
        sampling_settings={"sigma_data": 1.0, "sigma_max": 80.0, "sigma_min": 0.002},
        memory_usage_factor=1.0, supported_inference_dtypes=BF16_FP16, latent_format="Wan21",
    ),
    _config(
        "Anima", "BASE", "Anima", unet_config={"image_model": "anima"}, unet_extra_config={},
        sampling_settings={"multiplier": 1.0, "shift": 3.0}, memory_usage_factor=1.0,
        supported_inference_dtypes=BF16_FP16, latent_format="Wan21",
    ),
    _config(
        "CosmosI2VPredict2", "CosmosT2IPredict2", "CosmosPredict2",
        unet_config={"image_model": "cosmos_predict2", "in_channels": 17},
    ),
    _config(
        "Lumina2", "BASE", "Lumina2", unet_config={"image_model": "lumina2"}, unet_extra_config={},
        sampling_settings={"multiplier": 1.0, "shift": 6.0}, memory_usage_factor=1.4,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Flux",
    ),
    _config(
        "ZImagePixelSpace", "ZImage", "ZImagePixelSpace", unet_config={"image_model": "zimage_pixel"},
        memory_usage_factor=0.03, latent_format="ZImagePixelSpace",
    ),
    _config(
        "PixelDiTT2I", "BASE", "PixelDiTT2I", unet_config={"image_model": "pixeldit_t2i"},
        unet_extra_config={}, sampling_settings={"shift": 4.0}, memory_usage_factor=0.04,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="PixelDiTPixel",
    ),
    _config(
        "PiD", "PixelDiTT2I", "PiD", unet_config={"image_model": "pid"}, sampling_settings={"shift": 1.5},
    ),
    _config(
        "WAN21_T2V", "BASE", "WAN21", unet_config={"image_model": "wan2.1", "model_type": "t2v"},
        unet_extra_config={}, sampling_settings={"shift": 8.0}, memory_usage_factor=0.9,
        vae_key_prefix=["vae."], text_encoder_key_prefix=["text_encoders."], latent_format="Wan21",
    ),
    _config(
        "WAN21_CausalAR_T2V", "WAN21_T2V", "WAN21_CausalAR",
        unet_config={"image_model": "wan2.1", "model_type": "t2v", "causal_ar": True},
        sampling_settings={"shift": 5.0},
    ),
    _config(
        "WAN21_I2V", "WAN21_T2V", "WAN21",
        unet_config={"image_model": "wan2.1", "model_type": "i2v", "in_dim": 36},
    ),
    _config(
        "WAN21_FunControl2V", "WAN21_T2V", "WAN21",
        unet_config={"image_model": "wan2.1", "model_type": "i2v", "in_dim": 48},
    ),
    _config(
        "WAN21_Camera", "WAN21_T2V", "WAN21_Camera",
        unet_config={"image_model": "wan2.1", "model_type": "camera", "in_dim": 32},
    ),
    _config(
        "WAN22_Camera", "WAN21_T2V", "WAN21_Camera",
        unet_config={"image_model": "wan2.1", "model_type": "camera_2.2", "in_dim": 36},
    ),
    _config(
        "WAN21_Vace", "WAN21_T2V", "WAN21_Vace",
        unet_config={"image_model": "wan2.1", "model_type": "vace"},
    ),
    _config(
        "WAN21_HuMo", "WAN21_T2V", "WAN21_HuMo",
        unet_config={"image_model": "wan2.1", "model_type": "humo"},
    ),
    _config(
        "WAN22_S2V", "WAN21_T2V", "WAN22_S2V", unet_config={"image_model": "wan2.1", "model_type": "s2v"},
    ),
    _config(
        "WAN22_Animate", "WAN21_T2V", "WAN22_Animate",
        unet_config={"image_model": "wan2.1", "model_type": "animate"},
    ),
    _config(
        "WAN_Animate2", "WAN21_T2V", "WAN_Animate2",
        unet_config={"image_model": "wan2.1", "model_type": "animate2"}, sampling_settings={"shift": 5.0},
    ),
    _config(
        "WAN22_T2V", "WAN21_T2V", "WAN22",
        unet_config={"image_model": "wan2.1", "model_type": "t2v", "out_dim": 48}, latent_format="Wan22",
    ),
    _config(
        "Trellis2", "BASE", "Trellis2", unet_config={"image_model": "trellis2"},
        unet_extra_config={"num_heads": 12}, sampling_settings={"shift": 3.0}, memory_usage_factor=6,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."], latent_format="Trellis2",
    ),
    _config(
        "WAN21_FlowRVS", "WAN21_T2V", "WAN21_FlowRVS",
        unet_config={"image_model": "wan2.1", "model_type": "flow_rvs"},
    ),
    _config(
        "WAN21_SCAIL", "WAN21_T2V", "WAN21_SCAIL",
        unet_config={"image_model": "wan2.1", "model_type": "scail"},
    ),
    _config(
        "WAN21_SCAIL2", "WAN21_T2V", "WAN21_SCAIL2",
        unet_config={"image_model": "wan2.1", "model_type": "scail2"},
    ),
    _config(
        "WAN22_WanDancer", "WAN21_T2V", "WAN22_WanDancer",
        unet_config={"image_model": "wan2.1", "model_type": "wandancer", "in_dim": 36},
    ),
    _config(
        "Hunyuan3Dv2", "BASE", "Hunyuan3Dv2", unet_config={"image_model": "hunyuan3d2"},
        unet_extra_config={}, sampling_settings={"multiplier": 1.0, "shift": 1.0}, memory_usage_factor=3.5,
        vae_key_prefix=["vae."], latent_format="Hunyuan3Dv2",
    ),
    _config(
        "Hunyuan3Dv2_1", "Hunyuan3Dv2", "Hunyuan3Dv2_1", unet_config={"image_model": "hunyuan3d2_1"},
        latent_format="Hunyuan3Dv2_1",
    ),
    _config(
        "Hunyuan3Dv2mini", "Hunyuan3Dv2", None, unet_config={"image_model": "hunyuan3d2", "depth": 8},
        latent_format="Hunyuan3Dv2mini",
    ),
    _config(
        "TripoSplat", "BASE", "TripoSplat", unet_config={"image_model": "triposplat"},
        unet_extra_config={}, sampling_settings={"shift": 3.0}, memory_usage_factor=0.6,
        latent_format="TripoSplat",
    ),
    _config(
        "HiDream", "BASE", "HiDream", unet_config={"image_model": "hidream"}, unet_extra_config={},
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Flux",
    ),
    _config(
        "HiDreamO1", "BASE", "HiDreamO1", unet_config={"image_model": "hidream_o1"},
        sampling_settings={"shift": 3.0, "noise_scale": 8.0}, memory_usage_factor=0.033,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="HiDreamO1Pixel",
    ),
    _config(
        "Chroma", "BASE", "Chroma", unet_config={"image_model": "chroma"}, unet_extra_config={},
        sampling_settings={"multiplier": 1.0}, memory_usage_factor=3.2,
        supported_inference_dtypes=BF16_FP16, latent_format="Flux",
    ),
    _config(
        "SeedVR2", "BASE", "SeedVR2", unet_config={"image_model": "seedvr2"}, unet_extra_config={},
        required_keys="{'{}positive_conditioning', '{}negative_conditioning'}",
        sampling_settings={"shift": 1.0}, supported_inference_dtypes=BF16_FP16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="SeedVR2",
    ),
    _config(
        "ChromaRadiance", "Chroma", "ChromaRadiance", unet_config={"image_model": "chroma_radiance"},
        memory_usage_factor=0.044, latent_format="ChromaRadiance",
    ),
    _config(
        "ACEStep", "BASE", "ACEStep", unet_config={"audio_model": "ace"}, unet_extra_config={},
        sampling_settings={"shift": 3.0}, memory_usage_factor=0.5, supported_inference_dtypes=BF16,
        vae_key_prefix=["vae."], text_encoder_key_prefix=["text_encoders."], latent_format="ACEAudio",
    ),
    _config(
        "Omnigen2", "BASE", "Omnigen2", unet_config={"image_model": "omnigen2"}, unet_extra_config={},
        sampling_settings={"multiplier": 1.0, "shift": 2.6}, memory_usage_factor=1.95,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Flux",
    ),
    _config(
        "Boogu", "Omnigen2", "Boogu", unet_config={"image_model": "boogu"},
        sampling_settings={"multiplier": 1.0, "shift": 3.16}, memory_usage_factor=2.15,
    ),
    _config(
        "Ideogram4", "BASE", "Ideogram4", unet_config={"image_model": "ideogram4"},
        unet_extra_config={"num_attention_heads": 18, "attention_head_dim": 256, "intermediate_size":
            12288, "adaln_dim": 512, "llm_features_dim": 53248, "rope_theta": 5000000, "mrope_section":
            [24, 20, 20], "norm_eps": 1e-05},
        sampling_settings={"multiplier": 1.0, "shift": 1.0}, memory_usage_factor=11.6,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Flux2",
    ),
    _config(
        "Krea2", "BASE", "Krea2", unet_config={"image_model": "krea2"},
        sampling_settings={"multiplier": 1.0, "shift": 1.15}, memory_usage_factor=2.2,
        supported_inference_dtypes=BF16_FP16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Wan21",
    ),
    _config(
        "MageFlow", "BASE", "MageFlow", unet_config={"image_model": "mage_flow"}, unet_extra_config={},
        sampling_settings={"multiplier": 1.0, "shift": 6.0}, memory_usage_factor=6.5,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Flux2",
    ),
    _config(
        "QwenImage", "BASE", "QwenImage", unet_config={"image_model": "qwen_image"}, unet_extra_config={},
        sampling_settings={"multiplier": 1.0, "shift": 1.15}, memory_usage_factor=1.8,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Wan21",
    ),
    _config(
        "JoyImage", "BASE", "JoyImage", unet_config={"image_model": "joyimage"},
        unet_extra_config={"theta": 10000, "rope_dim_list": [16, 56, 56]},
        sampling_settings={"multiplier": 1000, "shift": 1.5}, memory_usage_factor=1.8,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Wan21",
    ),
    _config(
        "HunyuanImage21", "HunyuanVideo", "HunyuanImage21",
        unet_config={"image_model": "hunyuan_video", "vec_in_dim": None}, sampling_settings={"shift": 5.0},
        memory_usage_factor=8.7, latent_format="HunyuanImage21",
    ),
    _config(
        "HunyuanImage21Refiner", "HunyuanVideo", "HunyuanImage21Refiner",
        unet_config={"image_model": "hunyuan_video", "patch_size": [1, 1, 1], "vec_in_dim": None},
        sampling_settings={"shift": 4.0}, latent_format="HunyuanImage21Refiner",
    ),
    _config(
        "HunyuanVideo15", "HunyuanVideo", "HunyuanVideo15",
        unet_config={"image_model": "hunyuan_video", "vision_in_dim": 1152}, memory_usage_factor=4.0,
        supported_inference_dtypes=FP16_BF16, latent_format="HunyuanVideo15",
    ),
    _config(
        "HunyuanVideo15_SR_Distilled", "HunyuanVideo", "HunyuanVideo15_SR_Distilled",
        unet_config={"image_model": "hunyuan_video", "vision_in_dim": 1152, "in_channels": 98},
        sampling_settings={"shift": 2.0}, memory_usage_factor=4.0, supported_inference_dtypes=FP16_BF16,
        latent_format="HunyuanVideo15",
    ),
    _config(
        "Kandinsky5", "BASE", "Kandinsky5", unet_config={"image_model": "kandinsky5"},
        unet_extra_config={}, sampling_settings={"shift": 10.0}, memory_usage_factor=1.25,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="HunyuanVideo",
    ),
    _config(
        "Kandinsky5Image", "Kandinsky5", "Kandinsky5Image",
        unet_config={"image_model": "kandinsky5", "model_dim": 2560, "visual_embed_dim": 64},
        sampling_settings={"shift": 3.0}, latent_format="Flux",
    ),
    _config(
        "ACEStep15", "BASE", "ACEStep15", unet_config={"audio_model": "ace1.5"}, unet_extra_config={},
        sampling_settings={"multiplier": 1.0, "shift": 3.0}, memory_usage_factor=4.7,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="ACEAudio15",
    ),
    _config(
        "MiniMaxMusic3", "BASE", "MiniMaxMusic3", unet_config={"audio_model": "minimax_music3"},
        sampling_settings={"multiplier": 1.0}, latent_format="MiniMaxMusic3",
    ),
    _config(
        "LongCatImage", "BASE", "LongCatImage",
        unet_config={"image_model": "flux", "guidance_embed": False, "vec_in_dim": None, "context_in_dim":
            3584, "txt_ids_dims": [1, 2]},
        unet_extra_config={}, memory_usage_factor=2.5, supported_inference_dtypes=BF16_FP16,
        vae_key_prefix=["vae."], text_encoder_key_prefix=["text_encoders."], latent_format="Flux",
    ),
    _config(
        "RT_DETR_v4", "BASE", "RT_DETR_v4", unet_config={"image_model": "RT_DETR_v4"},
        supported_inference_dtypes=FP16_FP32,
    ),
    _config(
        "DepthAnything3", "BASE", "DepthAnything3", unet_config={"image_model": "DepthAnything3"},
        unet_extra_config={},
    ),
    _config(
        "ErnieImage", "BASE", "ErnieImage", unet_config={"image_model": "ernie"}, unet_extra_config={},
        sampling_settings={"multiplier": 1000.0, "shift": 3.0}, memory_usage_factor=10.0,
        supported_inference_dtypes=BF16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="Flux2",
    ),
    _config(
        "SAM3", "BASE", "SAM3", unet_config={"image_model": "SAM3"},
        text_encoder_key_prefix=["detector.backbone.language_backbone."],
    ),
    _config("SAM31", "SAM3", None, unet_config={"image_model": "SAM31"}),
    _config(
        "CogVideoX_T2V", "BASE", "CogVideoX", unet_config={"image_model": "cogvideox"},
        unet_extra_config={},
        sampling_settings={"linear_start": 0.00085, "linear_end": 0.012, "beta_schedule": "linear",
            "zsnr": True},
        supported_inference_dtypes=BF16_FP16, vae_key_prefix=["vae."],
        text_encoder_key_prefix=["text_encoders."], latent_format="CogVideoX",
    ),
    _config(
        "CogVideoX_I2V", "CogVideoX_T2V", "CogVideoX",
        unet_config={"image_model": "cogvideox", "in_channels": 32},
    ),
    _config(
        "CogVideoX_Inpaint", "CogVideoX_T2V", "CogVideoX",
        unet_config={"image_model": "cogvideox", "in_channels": 48},
    ),
])
# fmt: on


def sentence(name: str) -> str:
    """What an absent family says."""
    return (
        f"{name} is of a model family that does not run in this program; the name is here so that node "
        "packs which mention it can be imported. docs/models.md lists the families that run."
    )


def raising(name: str):
    """A function that says that `name` is absent."""

    def absent(*args, **kwargs):
        raise FamilyAbsent(sentence(name))

    absent.__name__ = absent.__qualname__ = name.rpartition(".")[2]
    absent.__doc__ = f"Raises FamilyAbsent: {name} is not here."
    return absent


def absent_class(module: str, name: str, base: type = torch.nn.Module) -> type:
    """A class whose construction raises FamilyAbsent."""
    text = f"Of a family that does not run here; to build one raises FamilyAbsent. ({module}.{name})"
    init = raising(f"{module}.{name}")
    return type(name, (base,), {"__module__": module, "__doc__": text, "__init__": init})


def absent_classes(module: str, *names: str) -> dict[str, type]:
    """{name: class} for the globals of a module of networks."""
    return {name: absent_class(module, name) for name in names}


def config_classes(present: dict[str, type], root: type) -> dict[str, type]:
    """The config classes that are not `present`, each a subclass of what it is one of, up to `root`."""
    found = {"BASE": root, **present}
    for name, (base, model, numbers) in CONFIGS.items():
        if name in found:
            continue
        numbers = dict(numbers)
        if "latent_format" in numbers:
            numbers["latent_format"] = getattr(comfy.latent_formats, numbers["latent_format"])
        full = f"comfy.supported_models.{name}"
        own = {"__module__": "comfy.supported_models", "__doc__": f"A variant of {base}, by its numbers."}
        if model is not None:  # others are variants of what their base builds
            own["__doc__"] = "Of a family that does not run here; `get_model` raises FamilyAbsent."
            own.update(get_model=raising(full), make_vae=raising(full))
        found[name] = type(name, (found[base],), {**numbers, **own})
    return {name: kind for name, kind in found.items() if name not in present and name != "BASE"}
