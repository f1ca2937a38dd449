"""By which tensors each family of models is known: a table for whole models, and one for LoRAs.

The first row counts whose tensors are all there; rows of variants stand before the row of their family. A
row names tensors that together no other family has, with shapes where names alone are not enough. Names of
tensors are facts of the published models: in the form of their authors, and in that of the diffusers library.
LoRAs whose tensors two families would have alike have no row: those of Flux.1 and Chroma in diffusers' form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shape = tuple[int | None, ...]
"""Of a tensor; None is any number."""
Tensors = Mapping[str, Shape | None]
"""{name without a prefix: its shape, or None where the name is enough}"""
_: None = None
PREFIXES = ("model.diffusion_model.", "", "diffusion_model.", "transformer.", "unet.", "net.", "model.",
            "model.model.")
"""What may stand before the names of a whole file."""


@dataclass(frozen=True)
class Signature:
    """A row of the table of whole models."""

    family: str
    variant: str | None
    tensors: Tensors
    without: str | None = None
    """A tensor that must not be there."""


@dataclass(frozen=True)
class Adapter:
    """A row of the table of LoRAs."""

    family: str
    variant: str | None
    modules: Mapping[str, tuple[int | None, int]]
    """{module, "_" between its parts and "#" for numbers: (how many values come in, the highest of its first
    numbers)}; None and 0 where that does not matter.
    """


# What all variants of a family have; _D is the form of diffusers.
_FLUX: Tensors = {
    "double_blocks.0.img_attn.qkv.weight": _,
    "vector_in.in_layer.weight": _,
    "txt_in.weight": _,
}
_FLUX_D: Tensors = {
    "time_text_embed.text_embedder.linear_1.weight": (3072, 768),
    "context_embedder.weight": (3072, 4096),
    "single_transformer_blocks.0.proj_mlp.weight": _,
}
_FLUX2: Tensors = {"single_stream_modulation.lin.weight": _, "double_stream_modulation_img.lin.weight": _}
_FLUX2_D: Tensors = {
    "single_stream_modulation.linear.weight": _,
    "double_stream_modulation_img.linear.weight": _,
}
_SD3: Tensors = {"joint_blocks.0.context_block.attn.qkv.weight": _}
_SD3_D: Tensors = {
    "time_text_embed.text_embedder.linear_1.weight": (_, 2048),
    "pos_embed.proj.weight": (_, 16, 2, 2),
    "transformer_blocks.0.attn.add_q_proj.weight": _,
}
_HUNYUAN: Tensors = {"txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.weight": _}
_HUNYUAN_D: Tensors = {"context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight": _}
_WAN: Tensors = {"head.modulation": _, "time_projection.1.weight": _, "blocks.0.cross_attn.q.weight": _}
_WAN_D: Tensors = {"condition_embedder.time_proj.weight": _, "blocks.0.attn2.norm_k.weight": _}
_WAN_IMAGE_D = "condition_embedder.image_embedder.ff.net.0.proj.weight"
_WAN_SMALL, _WAN_5B, _WAN_I2V = (1536, _, 1, 2, 2), (3072, 48, 1, 2, 2), (5120, 36, 1, 2, 2)
_LTX: Tensors = {"patchify_proj.weight": (_, 128), "adaln_single.emb.timestep_embedder.linear_1.weight": _}
_LTX_D: Tensors = {
    "proj_in.weight": (_, 128),
    "time_embed.emb.timestep_embedder.linear_1.weight": _,
    "transformer_blocks.0.scale_shift_table": _,
}
_COSMOS: Tensors = {
    "x_embedder.proj.1.weight": _,
    "blocks.0.self_attn.q_proj.weight": _,
    "t_embedding_norm.weight": _,
}
_COSMOS_D: Tensors = {
    "patch_embed.proj.weight": (_, _),
    "time_embed.t_embedder.linear_1.weight": _,
    "transformer_blocks.0.norm1.linear_1.weight": _,
}
_QWEN: Tensors = {
    "txt_norm.weight": (3584,),
    "img_in.weight": (3072, 64),
    "transformer_blocks.0.txt_mod.1.weight": _,
}

WHOLE = (
    Signature("flux3", None, {"early_stream_modulations.image.lin.weight": _}),
    Signature("flux3", None, {"early_stream_modulations.image.linear.weight": _}),
    Signature("flux2", "dev", {**_FLUX2, "img_in.weight": (6144, 128)}),
    Signature("flux2", "klein-9b", {**_FLUX2, "img_in.weight": (4096, 128)}),
    Signature("flux2", "klein-4b", {**_FLUX2, "img_in.weight": (3072, 128)}),
    Signature("flux2", None, _FLUX2),
    Signature("flux2", "dev", {**_FLUX2_D, "x_embedder.weight": (6144, 128)}),
    Signature("flux2", "klein-9b", {**_FLUX2_D, "x_embedder.weight": (4096, 128)}),
    Signature("flux2", "klein-4b", {**_FLUX2_D, "x_embedder.weight": (3072, 128)}),
    Signature("flux2", None, _FLUX2_D),
    Signature("chroma", "radiance", {"distilled_guidance_layer.in_proj.weight": _, "img_in_patch.weight": _}),
    Signature("chroma", None, {"distilled_guidance_layer.in_proj.weight": _}),
    Signature("flux1", "fill", {**_FLUX, "img_in.weight": (3072, 384)}),
    Signature("flux1", "control", {**_FLUX, "img_in.weight": (3072, 128)}),
    Signature("flux1", "dev", {**_FLUX, "img_in.weight": (3072, 64), "guidance_in.in_layer.weight": _}),
    Signature("flux1", "schnell", {**_FLUX, "img_in.weight": (3072, 64), "final_layer.linear.weight": _},
              without="guidance_in.in_layer.weight"),
    Signature("flux1", None, _FLUX),
    Signature("flux1", "fill", {**_FLUX_D, "x_embedder.weight": (3072, 384)}),
    Signature("flux1", "control", {**_FLUX_D, "x_embedder.weight": (3072, 128)}),
    Signature("flux1", "dev", {**_FLUX_D, "x_embedder.weight": (3072, 64), "proj_out.weight": _,
                               "time_text_embed.guidance_embedder.linear_1.weight": _}),
    Signature("flux1", "schnell", {**_FLUX_D, "x_embedder.weight": (3072, 64), "proj_out.weight": _},
              without="time_text_embed.guidance_embedder.linear_1.weight"),
    Signature("flux1", None, {**_FLUX_D, "x_embedder.weight": (3072, 64)}),
    Signature("sd3", "3.5-large", {**_SD3, "joint_blocks.37.x_block.attn.qkv.weight": _}),
    Signature("sd3", "3.5-medium", {**_SD3, "joint_blocks.0.x_block.attn2.qkv.weight": _}),
    Signature("sd3", "3-medium", {**_SD3, "x_embedder.proj.weight": (1536, 16, 2, 2)}),
    Signature("sd3", None, _SD3),
    Signature("sd3", "3.5-large", {**_SD3_D, "context_embedder.weight": (2432, 4096)}),
    Signature("sd3", "3.5-medium", {**_SD3_D, "transformer_blocks.0.attn2.to_q.weight": _}),
    Signature("sd3", "3-medium", {**_SD3_D, "context_embedder.weight": (1536, 4096)}),
    Signature("sd3", None, _SD3_D),
    Signature("hunyuan-image", None, {**_HUNYUAN, "img_in.proj.weight": (3584, 64, 1, 1)}),
    Signature("hunyuan-image", None, {**_HUNYUAN_D, "x_embedder.proj.weight": (3584, 64, 1, 1)}),
    Signature("hunyuan-video", "1.5", {**_HUNYUAN, "img_in.proj.weight": (2048, 65, 1, 1, 1)}),
    Signature("hunyuan-video", "1.5", {**_HUNYUAN_D, "x_embedder.proj.weight": (2048, 65, 1, 1, 1)}),
    Signature("hunyuan-video", "framepack", {**_HUNYUAN_D, "clean_x_embedder.proj.weight": _}),
    Signature("hunyuan-video", "i2v", {**_HUNYUAN, "img_in.proj.weight": (3072, 33, 1, 2, 2)}),
    Signature("hunyuan-video", "i2v", {**_HUNYUAN_D, "x_embedder.proj.weight": (3072, 33, 1, 2, 2)}),
    Signature("hunyuan-video", None, {**_HUNYUAN, "img_in.proj.weight": (3072, _, 1, 2, 2)}),
    Signature("hunyuan-video", None, {**_HUNYUAN_D, "x_embedder.proj.weight": (3072, _, 1, 2, 2)}),
    Signature("hunyuan-dit", None, {"mlp_t5.0.weight": _, "text_embedding_padding": (_, 1024)}),
    Signature("hunyuan-dit", None, {"text_embedder.linear_1.weight": (8192, 2048),
                                    "text_embedding_padding": (_, 1024)}),
    Signature("wan", "vace", {**_WAN, "vace_blocks.0.after_proj.weight": _}),
    Signature("wan", "animate", {**_WAN, "motion_encoder.dec.direction.weight": _}),
    Signature("wan", "2.1-1.3b", {**_WAN, "patch_embedding.weight": _WAN_SMALL}),
    Signature("wan", "2.2-5b", {**_WAN, "patch_embedding.weight": _WAN_5B}),
    Signature("wan", "2.1-i2v", {**_WAN, "img_emb.proj.1.weight": _, "patch_embedding.weight": _WAN_I2V},
              without="img_emb.emb_pos"),
    Signature("wan", "2.2-i2v", {**_WAN, "patch_embedding.weight": _WAN_I2V},
              without="img_emb.proj.1.weight"),
    Signature("wan", None, {**_WAN, "patch_embedding.weight": (_, _, 1, 2, 2)}),
    Signature("wan", "vace", {**_WAN_D, "vace_blocks.0.proj_out.weight": _}),
    Signature("wan", "animate", {**_WAN_D, "motion_encoder.motion_synthesis_weight": _}),
    Signature("wan", "2.1-1.3b", {**_WAN_D, "patch_embedding.weight": _WAN_SMALL}),
    Signature("wan", "2.2-5b", {**_WAN_D, "patch_embedding.weight": _WAN_5B}),
    Signature("wan", "2.1-i2v", {**_WAN_D, "patch_embedding.weight": _WAN_I2V, _WAN_IMAGE_D: _},
              without="condition_embedder.image_embedder.pos_embed"),
    Signature("wan", "2.2-i2v", {**_WAN_D, "patch_embedding.weight": _WAN_I2V}, without=_WAN_IMAGE_D),
    Signature("wan", None, {**_WAN_D, "patch_embedding.weight": (_, _, 1, 2, 2)}),
    Signature("ltx-video", "2", {**_LTX, "audio_patchify_proj.weight": _}),
    Signature("ltx-video", "13b", {**_LTX, "patchify_proj.weight": (4096, 128)}),
    Signature("ltx-video", None, {**_LTX, "patchify_proj.weight": (2048, 128)}),
    Signature("ltx-video", "2", {**_LTX_D, "audio_proj_in.weight": _}),
    Signature("ltx-video", "13b", {**_LTX_D, "proj_in.weight": (4096, 128)}),
    Signature("ltx-video", None, {**_LTX_D, "proj_in.weight": (2048, 128)}),
    Signature("cosmos", "1", {"x_embedder.proj.1.weight": _, "extra_pos_embedder.pos_emb_h": _,
                              "blocks.block0.blocks.0.block.attn.to_q.0.weight": _}),
    Signature("anima", None, {**_COSMOS, "llm_adapter.embed.weight": _}),
    Signature("cosmos", "predict2", _COSMOS),
    Signature("cosmos", None, _COSMOS_D),
    Signature("auraflow", None, {"double_layers.0.attn.w1q.weight": _, "cond_seq_linear.weight": _}),
    Signature("auraflow", None, {"joint_transformer_blocks.0.attn.add_q_proj.weight": _,
                                 "register_tokens": _}),
    Signature("z-image", None, {"cap_pad_token": _, "layers.0.attention.qkv.weight": (11520, 3840)}),
    Signature("z-image", None, {"cap_pad_token": _, "layers.0.attention.to_q.weight": (3840, 3840)}),
    Signature("lumina2", None, {"cap_embedder.1.weight": (2304, 2304), "x_embedder.weight": (2304, 64),
                                "context_refiner.0.attention.qkv.weight": _}),
    Signature("lumina2", None, {"time_caption_embed.caption_embedder.1.weight": (2304, 2304),
                                "x_embedder.weight": (2304, 64)}),
    Signature("hidream", None, {"double_stream_blocks.0.block.attn1.to_q.weight": _,
                                "p_embedder.pooled_embedder.linear_1.weight": _}),
    Signature("qwen-image", "layered", {**_QWEN, "time_text_embed.addition_t_embedding.weight": _}),
    Signature("qwen-image", None, _QWEN),
    Signature("qwen-image", "2.1", {"txt_in.text_norm.weight": _,
                                    "transformer_blocks.0.img_mlp.out.weight": _}),
    Signature("stable-cascade", "stage-c", {"clip_txt_mapper.weight": _, "clf.1.weight": _}),
    Signature("stable-cascade", "stage-b", {"effnet_mapper.0.weight": _, "clf.1.weight": _}),
    Signature("kolors", None, {"encoder_hid_proj.weight": (2048, 4096), "add_embedding.linear_1.weight": _}),
    Signature("mochi", None, {"t5_yproj.weight": _, "blocks.0.attn.qkv_x.weight": _}),
    Signature("mochi", None, {"time_embed.pooler.to_kv.weight": _,
                              "transformer_blocks.0.attn1.add_q_proj.weight": _}),
    Signature("pixart", "alpha", {"t_block.1.weight": (6912, 1152), "csize_embedder.mlp.0.weight": _}),
    Signature("pixart", None, {"t_block.1.weight": (6912, 1152), "y_embedder.y_embedding": _}),
    Signature("pixart", "alpha", {"adaln_single.linear.weight": (6912, 1152), "pos_embed.proj.weight": _,
                                  "adaln_single.emb.resolution_embedder.linear_1.weight": _}),
    Signature("pixart", None, {"adaln_single.linear.weight": (6912, 1152),
                               "pos_embed.proj.weight": (1152, 4, 2, 2)}),
    Signature("ace-step", "1", {"genre_embedder.weight": _, "lyric_embs.weight": _,
                                "speaker_embedder.weight": _}),
    Signature("ace-step", "1.5", {"time_embed_r.linear_1.weight": _, "proj_in_conv.weight": (2048, 192, 2)}),
    Signature("stable-audio", None, {"timestep_features.weight": _, "to_timestep_embed.0.weight": _,
                                     "preprocess_conv.weight": _}),
    Signature("stable-audio", None, {"timestep_proj.0.weight": _, "global_proj.0.weight": _,
                                     "preprocess_conv.weight": _}),
)

ANY = (None, 0)
ADAPTERS = (
    Adapter("flux2", "dev", {"single_transformer_blocks_#_attn_to_qkv_mlp_proj": (6144, 0)}),
    Adapter("flux2", "klein-9b", {"single_transformer_blocks_#_attn_to_qkv_mlp_proj": (4096, 0)}),
    Adapter("flux2", "klein-4b", {"single_transformer_blocks_#_attn_to_qkv_mlp_proj": (3072, 0)}),
    Adapter("flux2", "dev", {"single_blocks_#_linear1": (6144, 0)}),
    Adapter("flux2", "klein-9b", {"single_blocks_#_linear1": (4096, 0)}),
    Adapter("chroma", None, {"distilled_guidance_layer_in_proj": ANY}),
    Adapter("flux1", "control", {"double_blocks_#_img_mod_lin": (3072, 0), "img_in": (128, 0)}),
    Adapter("flux1", None, {"double_blocks_#_img_mod_lin": (3072, 0)}),
    Adapter("flux1", None, {"single_blocks_#_modulation_lin": (3072, 0)}),
    Adapter("flux1", None, {"double_blocks_#_processor_qkv_lora1": (3072, 0)}),
    Adapter("hunyuan-image", None, {"double_blocks_#_img_attn_qkv": (3584, 0)}),
    Adapter("hunyuan-image", None, {"single_transformer_blocks_#_attn_to_q": (3584, 0)}),
    Adapter("hunyuan-video", None, {"double_blocks_#_img_attn_qkv": (3072, 19)}),
    Adapter("hunyuan-video", None, {"single_transformer_blocks_#_attn_to_q": (3072, 39),
                                    "transformer_blocks_#_attn_to_q": (3072, 19)}),
    Adapter("hunyuan-video", "1.5", {"double_blocks_#_img_attn_q": (2048, 53)}),
    Adapter("hunyuan-video", "1.5", {"transformer_blocks_#_attn_add_k_proj": (2048, 53)}),
    Adapter("sd3", None, {"joint_blocks_#_x_block_attn_qkv": ANY}),
    Adapter("sd3", None, {"joint_blocks_#_context_block_attn_qkv": ANY}),
    Adapter("sd3", "3.5-large", {"transformer_blocks_#_attn_add_k_proj": (2432, 0)}),
    Adapter("sd3", None, {"transformer_blocks_#_attn_add_k_proj": (1536, 0)}),
    Adapter("sd3", "3.5-large", {"transformer_blocks_#_attn_to_q": (2432, 0)}),
    Adapter("qwen-image", None, {"transformer_blocks_#_img_mlp_net_#_proj": (3072, 0)}),
    Adapter("qwen-image", None, {"transformer_blocks_#_txt_mod_#": (3072, 0)}),
    Adapter("qwen-image", None, {"transformer_blocks_#_attn_add_k_proj": (3072, 59)}),
    Adapter("wan", "2.1-1.3b", {"blocks_#_self_attn_q": (1536, 0), "blocks_#_cross_attn_k": (1536, 0)}),
    Adapter("wan", "2.2-5b", {"blocks_#_self_attn_q": (3072, 0), "blocks_#_cross_attn_k": (3072, 0)}),
    Adapter("wan", "2.1-i2v", {"blocks_#_self_attn_q": (5120, 0), "blocks_#_cross_attn_k_img": (5120, 0)}),
    Adapter("wan", None, {"blocks_#_self_attn_q": (5120, 0), "blocks_#_cross_attn_k": (5120, 0)}),
    Adapter("wan", "2.1-1.3b", {"blocks_#_attn1_to_q": (1536, 0), "blocks_#_attn2_to_k": (1536, 0)}),
    Adapter("wan", "2.2-5b", {"blocks_#_attn1_to_q": (3072, 0), "blocks_#_attn2_to_k": (3072, 0)}),
    Adapter("wan", "2.1-i2v", {"blocks_#_attn1_to_q": (5120, 0), "blocks_#_attn2_add_k_proj": (5120, 0)}),
    Adapter("wan", None, {"blocks_#_attn1_to_q": (5120, 0), "blocks_#_attn2_to_k": (5120, 0)}),
    Adapter("cosmos", "predict2", {"blocks_#_self_attn_q_proj": (5120, 0)}),
    Adapter("anima", None, {"llm_adapter_blocks_#_self_attn_q_proj": ANY}),
    Adapter("ltx-video", "2", {"transformer_blocks_#_audio_attn1_to_q": (2048, 0)}),
    Adapter("ltx-video", "13b", {"transformer_blocks_#_attn1_to_q": (4096, 0),
                                 "transformer_blocks_#_attn2_to_k": (4096, 0)}),
    Adapter("ltx-video", None, {"transformer_blocks_#_attn1_to_q": (2048, 0),
                                "transformer_blocks_#_attn2_to_k": (2048, 0)}),
    Adapter("z-image", None, {"layers_#_attention_to_q": (3840, 0)}),
    Adapter("z-image", None, {"layers_#_attention_qkv": (3840, 0)}),
    Adapter("lumina2", None, {"layers_#_attention_qkv": (2304, 0)}),
    Adapter("lumina2", None, {"layers_#_attn_to_q": (2304, 0)}),
    Adapter("hidream", None, {"double_stream_blocks_#_block_attn1_to_q": (2560, 0)}),
    Adapter("auraflow", None, {"double_layers_#_attn_w1q": ANY}),
    Adapter("auraflow", None, {"joint_transformer_blocks_#_attn_to_q": (3072, 0)}),
    Adapter("mochi", None, {"blocks_#_attn_qkv_x": (3072, 0)}),
    Adapter("mochi", None, {"transformer_blocks_#_attn1_add_k_proj": (1536, 0)}),
    Adapter("hunyuan-dit", None, {"blocks_#_attn1_Wqkv": (1408, 0)}),
    Adapter("hunyuan-dit", None, {"blocks_#_attn1_to_q": (1408, 0), "blocks_#_attn2_to_k": (1024, 0)}),
    Adapter("pixart", None, {"blocks_#_cross_attn_kv_linear": (1152, 0)}),
    Adapter("pixart", None, {"transformer_blocks_#_attn1_to_q": (1152, 0),
                             "transformer_blocks_#_attn2_to_k": (1152, 0)}),
)
