"""Which family a model is of, from the names and shapes of its tensors, and from words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from comfy_depot.base_models import FAMILIES, Asked, Model, asked_for, by_tensors, by_words
from comfy_depot.signatures import ADAPTERS, PREFIXES, WHOLE

FLUX = {"double_blocks.0.img_attn.qkv.weight": (9216, 3072), "double_blocks.0.img_mod.lin.weight": (18432,
                                                                                                    3072),
        "single_blocks.0.linear1.weight": (21504, 3072), "vector_in.in_layer.weight": (3072, 768),
        "txt_in.weight": (3072, 4096), "final_layer.linear.weight": (64, 3072)}
GUIDED = {"guidance_in.in_layer.weight": (3072, 256)}
FLUX2 = {"double_blocks.0.img_attn.qkv.weight": (18432, 6144), "single_stream_modulation.lin.weight": (18432,
                                                                                                       6144),
         "double_stream_modulation_img.lin.weight": (36864, 6144), "txt_in.weight": (6144, 15360)}
CHROMA = {"double_blocks.0.img_attn.qkv.weight": (9216, 3072), "txt_in.weight": (3072, 4096),
          "distilled_guidance_layer.in_proj.weight": (5120, 64)}
SD3 = {"joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536), "context_embedder.weight": (1536, 4096),
       "joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536), "x_embedder.proj.weight": (1536, 16, 2, 2)}
HUNYUAN = {"txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.weight": (6144, 3072),
           "double_blocks.0.img_attn_qkv.weight": (9216, 3072)}
WAN = {"text_embedding.0.weight": (5120, 4096), "time_projection.1.weight": (30720, 5120),
       "blocks.0.cross_attn.q.weight": (5120, 5120), "blocks.0.self_attn.q.weight": (5120, 5120),
       "head.modulation": (1, 2, 5120), "patch_embedding.weight": (5120, 16, 1, 2, 2)}
LTX = {"patchify_proj.weight": (2048, 128), "adaln_single.emb.timestep_embedder.linear_1.weight": (2048, 256),
       "transformer_blocks.0.attn1.to_q.weight": (2048, 2048),
       "transformer_blocks.0.attn2.to_k.weight": (2048, 2048)}
COSMOS2 = {"x_embedder.proj.1.weight": (2048, 68), "blocks.0.self_attn.q_proj.weight": (2048, 2048),
           "t_embedding_norm.weight": (2048,)}
QWEN = {"txt_norm.weight": (3584,), "txt_in.weight": (3072, 3584), "img_in.weight": (3072, 64),
        "transformer_blocks.0.txt_mod.1.weight": (18432, 3072),
        "transformer_blocks.0.attn.add_k_proj.weight": (3072, 3072)}
UNET = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"

CASES: list[tuple[str, dict[str, tuple[int, ...]], str, str | None]] = [
    ("SD 1", {UNET: (640, 768), "input_blocks.0.0.weight": (320, 4, 3, 3)}, "sd1", None),
    ("SD 1 inpainting", {UNET: (640, 768), "input_blocks.0.0.weight": (320, 9, 3, 3)}, "sd1", "inpaint"),
    ("InstructPix2Pix", {UNET: (640, 768), "input_blocks.0.0.weight": (320, 8, 3, 3)}, "sd1", "edit"),
    ("SD 2 depth", {UNET: (640, 1024), "input_blocks.0.0.weight": (320, 5, 3, 3)}, "sd2", "depth"),
    ("SDXL", {UNET: (640, 2048), "input_blocks.0.0.weight": (320, 4, 3, 3)}, "sdxl", None),
    ("SDXL refiner", {UNET: (768, 1280)}, "sdxl-refiner", None),
    ("SDXL of diffusers, inpainting",
     {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
      "conv_in.weight": (320, 9, 3, 3), "add_embedding.linear_1.weight": (1280, 2816)}, "sdxl", "inpaint"),
    ("Kolors", {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
                "encoder_hid_proj.weight": (2048, 4096), "add_embedding.linear_1.weight": (1280, 5632)},
     "kolors", None),
    ("SD3 medium", SD3, "sd3", "3-medium"),
    ("SD3.5 medium", {**SD3, "joint_blocks.0.x_block.attn2.qkv.weight": (4608, 1536)}, "sd3", "3.5-medium"),
    ("SD3.5 large", {**SD3, "joint_blocks.37.x_block.attn.qkv.weight": (7296, 2432),
                     "x_embedder.proj.weight": (2432, 16, 2, 2)}, "sd3", "3.5-large"),
    ("Flux.1 dev", {**FLUX, **GUIDED, "img_in.weight": (3072, 64)}, "flux1", "dev"),
    ("Flux.1 schnell", {**FLUX, "img_in.weight": (3072, 64)}, "flux1", "schnell"),
    ("Flux.1 fill", {**FLUX, **GUIDED, "img_in.weight": (3072, 384)}, "flux1", "fill"),
    ("Flux.1 depth", {**FLUX, **GUIDED, "img_in.weight": (3072, 128)}, "flux1", "control"),
    ("Flux.1 of another width", {**FLUX, "img_in.weight": (3072, 96)}, "flux1", None),
    ("Flux.2 dev", {**FLUX2, "img_in.weight": (6144, 128)}, "flux2", "dev"),
    ("Flux.2 klein 9B", {**FLUX2, "img_in.weight": (4096, 128)}, "flux2", "klein-9b"),
    ("Flux.2 klein 4B", {**FLUX2, "img_in.weight": (3072, 128)}, "flux2", "klein-4b"),
    ("Flux.3", {"early_stream_modulations.image.lin.weight": (9216, 3072)}, "flux3", None),
    ("Chroma", {**CHROMA, "img_in.weight": (3072, 64)}, "chroma", None),
    ("Chroma Radiance", {**CHROMA, "img_in_patch.weight": (3072, 3, 16, 16)}, "chroma", "radiance"),
    ("PixArt alpha", {"t_block.1.weight": (6912, 1152), "csize_embedder.mlp.0.weight": (384, 256),
                      "y_embedder.y_embedding": (120, 4096)}, "pixart", "alpha"),
    ("PixArt sigma", {"t_block.1.weight": (6912, 1152), "y_embedder.y_embedding": (300, 4096)}, "pixart",
     None),
    ("HunyuanDiT", {"mlp_t5.0.weight": (8192, 2048), "text_embedding_padding": (333, 1024),
                    "blocks.0.attn1.Wqkv.weight": (4224, 1408)}, "hunyuan-dit", None),
    ("Hunyuan Video", {**HUNYUAN, "img_in.proj.weight": (3072, 16, 1, 2, 2)}, "hunyuan-video", None),
    ("Hunyuan Video I2V", {**HUNYUAN, "img_in.proj.weight": (3072, 33, 1, 2, 2)}, "hunyuan-video", "i2v"),
    ("Hunyuan Video 1.5", {**HUNYUAN, "img_in.proj.weight": (2048, 65, 1, 1, 1)}, "hunyuan-video", "1.5"),
    ("FramePack", {"context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight": (3072, 3072),
                   "x_embedder.proj.weight": (3072, 16, 1, 2, 2),
                   "clean_x_embedder.proj.weight": (3072, 16, 1, 2, 2)}, "hunyuan-video", "framepack"),
    ("Hunyuan Image 2.1", {**HUNYUAN, "img_in.proj.weight": (3584, 64, 1, 1)}, "hunyuan-image", None),
    ("Wan 14B, text to video", WAN, "wan", None),
    ("Wan 2.1 1.3B", {**WAN, "patch_embedding.weight": (1536, 16, 1, 2, 2)}, "wan", "2.1-1.3b"),
    ("Wan 2.2 5B", {**WAN, "patch_embedding.weight": (3072, 48, 1, 2, 2)}, "wan", "2.2-5b"),
    ("Wan 2.1 I2V", {**WAN, "patch_embedding.weight": (5120, 36, 1, 2, 2),
                     "img_emb.proj.1.weight": (1280, 1280)}, "wan", "2.1-i2v"),
    ("Wan 2.2 I2V", {**WAN, "patch_embedding.weight": (5120, 36, 1, 2, 2)}, "wan", "2.2-i2v"),
    ("Wan first and last frame", {**WAN, "patch_embedding.weight": (5120, 36, 1, 2, 2),
                                  "img_emb.proj.1.weight": (1280, 1280), "img_emb.emb_pos": (1, 514, 1280)},
     "wan", None),
    ("Wan VACE", {**WAN, "vace_blocks.0.after_proj.weight": (5120, 5120)}, "wan", "vace"),
    ("Wan Animate", {**WAN, "motion_encoder.dec.direction.weight": (512, 20)}, "wan", "animate"),
    ("LTX-Video 2B", LTX, "ltx-video", None),
    ("LTX-Video 13B", {**LTX, "patchify_proj.weight": (4096, 128)}, "ltx-video", "13b"),
    ("LTX-2", {**LTX, "patchify_proj.weight": (4096, 128), "audio_patchify_proj.weight": (2048, 128)},
     "ltx-video", "2"),
    ("Cosmos 1", {"x_embedder.proj.1.weight": (4096, 68), "extra_pos_embedder.pos_emb_h": (128, 4096),
                  "blocks.block0.blocks.0.block.attn.to_q.0.weight": (4096, 4096)}, "cosmos", "1"),
    ("Cosmos Predict2", COSMOS2, "cosmos", "predict2"),
    ("Anima", {**COSMOS2, "llm_adapter.embed.weight": (32128, 1024)}, "anima", None),
    ("AuraFlow", {"double_layers.0.attn.w1q.weight": (3072, 3072), "cond_seq_linear.weight": (3072, 2048),
                  "register_tokens": (1, 8, 3072)}, "auraflow", None),
    ("Lumina 2", {"cap_embedder.1.weight": (2304, 2304), "x_embedder.weight": (2304, 64),
                  "context_refiner.0.attention.qkv.weight": (3840, 2304),
                  "layers.0.attention.qkv.weight": (3840, 2304)}, "lumina2", None),
    ("Z-Image", {"cap_pad_token": (1, 3840), "x_pad_token": (1, 3840), "x_embedder.weight": (3840, 64),
                 "context_refiner.0.attention.qkv.weight": (11520, 3840),
                 "layers.0.attention.qkv.weight": (11520, 3840)}, "z-image", None),
    ("HiDream", {"double_stream_blocks.0.block.attn1.to_q.weight": (2560, 2560),
                 "p_embedder.pooled_embedder.linear_1.weight": (2560, 2048)}, "hidream", None),
    ("Qwen-Image", QWEN, "qwen-image", None),
    ("Qwen-Image Layered", {**QWEN, "time_text_embed.addition_t_embedding.weight": (2, 3072)}, "qwen-image",
     "layered"),
    ("Qwen-Image 2.1", {"txt_in.text_norm.weight": (4096,), "img_in.weight": (4096, 64),
                        "transformer_blocks.0.img_mlp.out.weight": (4096, 12288)}, "qwen-image", "2.1"),
    ("Stable Cascade, stage C", {"clip_txt_mapper.weight": (2048, 1280), "clf.1.weight": (16, 2048, 1, 1)},
     "stable-cascade", "stage-c"),
    ("Stable Cascade, stage B", {"effnet_mapper.0.weight": (1280, 16, 1, 1), "clip_mapper.weight": (5120,
                                                                                                    1280),
                                 "clf.1.weight": (16, 320, 1, 1)}, "stable-cascade", "stage-b"),
    ("Mochi", {"t5_yproj.weight": (1536, 4096), "blocks.0.attn.qkv_x.weight": (9216, 3072)}, "mochi", None),
    ("ACE-Step", {"genre_embedder.weight": (2560, 768), "lyric_embs.weight": (6693, 1024),
                  "speaker_embedder.weight": (2560, 512)}, "ace-step", "1"),
    ("Stable Audio", {"timestep_features.weight": (128, 1), "to_timestep_embed.0.weight": (1536, 256),
                      "preprocess_conv.weight": (64, 64, 1)}, "stable-audio", None),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "family", "variant"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_whole_model_is_known_by_its_tensors(
    shapes: dict[str, tuple[int, ...]], family: str, variant: str | None, prefix: str
) -> None:
    others = {"vae.encoder.conv_in.weight": (128, 3, 3, 3), "cond_stage_model.logit_scale": (1,)}
    found = {**{prefix + key: shape for key, shape in shapes.items()}, **others}
    assert by_tensors(found) == Model(family, variant)


@pytest.mark.parametrize(("prefix", "name"), [
    ("net.", "Cosmos Predict2"), ("model.model.", "Stable Audio"), ("diffusion_model.", "Wan Animate"),
    ("transformer.", "Qwen-Image"),
])  # fmt: skip
def test_other_prefixes_that_files_have_are_known(prefix: str, name: str) -> None:
    (case,) = [case for case in CASES if case[0] == name]
    assert by_tensors({prefix + key: shape for key, shape in case[1].items()}) == Model(*case[2:])


@pytest.mark.parametrize("shapes", [
    {},
    {"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)},  # a VAE
    {"text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768)},  # a text encoder
    {"double_blocks.0.img_attn.qkv.weight": (9216, 3072), "txt_in.weight": (3072, 4096)},  # half a Flux.1
    {UNET: (640, 512)},
    {UNET: (640, 1024), "input_blocks.1.1.time_stack.0.norm1.weight": (320,)},  # Stable Video Diffusion
    {**LTX, "patchify_proj.weight": (1024, 128)},
    {"head.modulation": (1, 2, 5120), "patch_embedding.weight": (5120, 16, 1, 2, 2)},
    {**{key: shape for key, shape in QWEN.items() if key != "txt_norm.weight"}},
    {"cap_pad_token": (1, 2560), "layers.0.attention.qkv.weight": (7680, 2560)},
])  # fmt: skip
def test_what_fits_nothing_is_not_known(shapes: dict[str, tuple[int, ...]]) -> None:
    assert by_tensors(shapes) == Model(None, None)


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_no_row_of_the_table_hides_behind_another(number: int) -> None:
    row = WHOLE[number]
    shapes = {key: tuple(size or 7 for size in shape or (7, 7)) for key, shape in row.tensors.items()}
    assert by_tensors(shapes) == Model(row.family, row.variant)
    assert row.family in FAMILIES and (row.variant is None or row.variant in FAMILIES[row.family].variants)
    for key in row.tensors:
        less = {other: shape for other, shape in shapes.items() if other != key}
        assert by_tensors(less) != Model(row.family, row.variant) or row.variant is None


def lora(width: int, *modules: str, form: str = "diffusion_model.{}.lora_A.weight") -> dict[str, tuple[int,
                                                                                                       int]]:
    return {form.format(module): (16, width) for module in modules}


KOHYA = "lora_unet_{}.lora_down.weight"
LORAS: list[tuple[dict[str, tuple[int, int]], str | None, str | None]] = [
    (lora(768, "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", form=KOHYA), "sd1", None),
    (lora(2048, "input_blocks_4_1_transformer_blocks_0_attn2_to_k", form=KOHYA), "sdxl", None),
    (lora(2048, "input_blocks_4_1_transformer_blocks_0_attn2_to_k", form="lora_unet_{}.hada_w1_b"), "sdxl",
     None),
    (lora(1024, "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
          form="unet.{}.lora.down.weight"),
     "sd2", None),
    (lora(3072, "double_blocks_0_img_mod_lin", "double_blocks_18_img_attn_qkv", form=KOHYA), "flux1", None),
    (lora(3072, "single_blocks.0.modulation.lin"), "flux1", None),
    (lora(3072, "double_blocks.0.processor.qkv_lora1", form="{}.down.weight"), "flux1", None),
    ({**lora(3072, "double_blocks.0.img_mod.lin"), **lora(128, "img_in")}, "flux1", "control"),
    (lora(3072, "double_blocks_18_img_attn_qkv", "single_blocks_37_linear1", form=KOHYA), None, None),
     # Chroma?
    (lora(3072, "transformer_blocks.18.attn.to_q", "single_transformer_blocks.37.attn.to_q",
          form="transformer.{}.lora_A.weight"), None, None),  # Flux.1 or Chroma
    (lora(6144, "single_transformer_blocks.0.attn.to_qkv_mlp_proj", form="transformer.{}.lora_A.weight"),
     "flux2", "dev"),
    (lora(4096, "single_blocks_0_linear1", form=KOHYA), "flux2", "klein-9b"),
    (lora(3072, "distilled_guidance_layer.in_proj"), "chroma", None),
    (lora(1536, "joint_blocks_0_x_block_attn_qkv", form=KOHYA), "sd3", None),
    (lora(2432, "transformer_blocks.0.attn.add_k_proj", form="transformer.{}.lora_A.weight"), "sd3",
     "3.5-large"),
    (lora(3072, "double_blocks.0.img_attn_qkv", "double_blocks.19.img_attn_qkv"), "hunyuan-video", None),
    (lora(3072, "double_blocks_7_img_attn_qkv", form=KOHYA), None, None),  # or one of the families above
    (lora(3584, "double_blocks_0_img_attn_qkv", form=KOHYA), "hunyuan-image", None),
    (lora(5120, "blocks.0.self_attn.q", "blocks.0.cross_attn.k"), "wan", None),
    (lora(1536, "blocks_0_self_attn_q", "blocks_0_cross_attn_k", form=KOHYA), "wan", "2.1-1.3b"),
    (lora(3072, "blocks.0.attn1.to_q", "blocks.0.attn2.to_k", form="transformer.{}.lora_A.default.weight"),
     "wan", "2.2-5b"),
    (lora(5120, "blocks.0.self_attn.q", "blocks.0.cross_attn.k", "blocks.0.cross_attn.k_img"), "wan",
     "2.1-i2v"),
    (lora(3072, "transformer_blocks.0.attn.to_q", "transformer_blocks.0.img_mlp.net.0.proj"), "qwen-image",
     None),
    (lora(3072, "transformer_blocks_59_attn_add_k_proj", form=KOHYA), "qwen-image", None),
    (lora(3840, "layers.0.attention.to_q"), "z-image", None),
    (lora(2304, "layers_0_attention_qkv", form=KOHYA), "lumina2", None),
    (lora(2048, "transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn2.to_k"), "ltx-video", None),
    (lora(2048, "transformer_blocks.0.audio_attn1.to_q"), "ltx-video", "2"),
    (lora(2560, "double_stream_blocks.0.block.attn1.to_q"), "hidream", None),
    (lora(2048, "blocks_0_self_attn_q_proj", form=KOHYA), None, None),  # Cosmos Predict2 2B or Anima
    (lora(1024, "llm_adapter_blocks_0_self_attn_q_proj", form=KOHYA), "anima", None),
    (lora(512, "something_of_my_own"), None, None),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "family", "variant"), LORAS)
def test_a_lora_is_known_by_its_modules(
    shapes: dict[str, tuple[int, ...]], family: str | None, variant: str | None
) -> None:
    ups = {re.sub("lora_A|lora_down|down", "lora_B", key): (99, 16) for key in shapes}
    assert by_tensors({**ups, **shapes}) == Model(family, variant)


@pytest.mark.parametrize("number", range(len(ADAPTERS)))
def test_no_row_of_the_loras_hides_behind_another(number: int) -> None:
    row = ADAPTERS[number]
    shapes = {f"diffusion_model.{module.replace('#', str(highest))}.lora_A.weight": (16, width or 7)
              for module, (width, highest) in row.modules.items()}
    assert by_tensors(shapes) == Model(row.family, row.variant)
    assert row.family in FAMILIES


@pytest.mark.parametrize(("words", "family", "variant"), [
    ("stable-diffusion-v1", "sd1", None), ("sd_1.5", "sd1", None), ("sd_v2", "sd2", None),
    ("stable-diffusion-v2-768-v", "sd2", None), ("sdxl_base_v1-0", "sdxl", None),
    ("stable-diffusion-xl-v1-base/lora", "sdxl", None),
    ("stable-diffusion-xl-v1-refiner", "sdxl-refiner", None),
    ("stable-diffusion-xl-v1-edit", "sdxl", "edit"), ("stable-diffusion-v3.5-large", "sd3", "3.5-large"),
    ("flux1", "flux1", None), ("flux-1-schnell", "flux1", "schnell"), ("Flux.1-dev/lora", "flux1", "dev"),
    ("flux_kontext", "flux1", "kontext"), ("flux.1_kontext", "flux1", "kontext"), ("Flux.1 D", "flux1", None),
    ("Flux.2-dev", "flux2", "dev"), ("flux_2_klein_9b", "flux2", "klein-9b"),
    ("chroma_radiance", "chroma", "radiance"),
    ("hunyuan_video_1_5", "hunyuan-video", "1.5"), ("framepack", "hunyuan-video", "framepack"),
    ("hunyuan-image-2.1", "hunyuan-image", None), ("wan2.1", "wan", "2.1"), ("wan_2.2_14b", "wan", "2.2"),
    ("wan", "wan", None), ("Wan Video 2.2 I2V-A14B", "wan", "2.2-i2v"), ("ltx2", "ltx-video", "2"),
    ("lumina-2", "lumina2", None), ("hidream_i1", "hidream", None), ("qwen_image_edit", "qwen-image", "edit"),
    ("Qwen-Image-Layered", "qwen-image", "layered"), ("zimage", "z-image", None),
    ("Z-Image", "z-image", None),
    ("stable-cascade", "stable-cascade", None), ("pixart-sigma", "pixart", "sigma"),
    ("anima-preview", "anima", None),
])  # fmt: skip
def test_words_of_files_name_a_family(words: str, family: str, variant: str | None) -> None:
    assert by_words(words) == Model(family, variant)


@pytest.mark.parametrize("words", ["", "of-my-own", "wander", "animatediff", "lumina", "HiDream-O1-Image",
                                   "kandinsky5"])
def test_other_words_name_none(words: str) -> None:
    assert by_words(words) is None


@pytest.mark.parametrize(("words", "family", "variants"), [
    ("SDXL", "sdxl", None), ("sdxl 1.0", "sdxl", None), ("SD 1.5", "sd1", None),
    ("stable diffusion v1", "sd1", None), ("sd2.1", "sd2", None), ("SD3.5", "sd3", None),
    ("sd3.5 large", "sd3", {"3.5-large"}), ("sdxl refiner", "sdxl-refiner", None),
    ("flux", "flux1", None), ("Flux.1", "flux1", None), ("flux-1-schnell", "flux1", {"schnell"}),
    ("flux2", "flux2", None), ("flux 2 klein", "flux2", {"klein-4b", "klein-9b"}), ("wan", "wan", None),
    ("wan 2.2", "wan", {"2.2", "2.2-5b", "2.2-i2v"}), ("wan vace", "wan", {"vace"}),
    ("qwen", "qwen-image", None),
    ("z-image", "z-image", None), ("hunyuan video", "hunyuan-video", None),
    ("cascade", "stable-cascade", None),
])  # fmt: skip
def test_people_write_a_family_in_many_ways(words: str, family: str, variants: Any) -> None:
    assert asked_for(words) == Asked(family, variants and frozenset(variants))


@pytest.mark.parametrize("words", ["sdxl-turbo", "s", "", "hunyuan", "my own"])
def test_what_is_no_family_is_searched_for_as_words(words: str) -> None:
    assert asked_for(words) is None


# --- with the model zoo's own classes


def published() -> dict[str, tuple[dict[str, Any], Model]]:
    """Classes of diffusers with what of their configuration differs from the default, and what they are."""
    return {
        "FluxTransformer2DModel": ({"guidance_embeds": True}, Model("flux1", "dev")),
        "Flux2Transformer2DModel": ({}, Model("flux2", "dev")),
        "ChromaTransformer2DModel": ({}, Model("chroma")),
        "SD3Transformer2DModel": ({"num_attention_heads": 38, "num_layers": 38, "attention_head_dim": 64,
                                   "caption_projection_dim": 2432}, Model("sd3", "3.5-large")),
        "PixArtTransformer2DModel": ({"caption_channels": 4096}, Model("pixart", "alpha")),
        "HunyuanVideoTransformer3DModel": ({}, Model("hunyuan-video")),
        "HunyuanVideo15Transformer3DModel": ({}, Model("hunyuan-video", "1.5")),
        "HunyuanVideoFramepackTransformer3DModel": ({"has_clean_x_embedder": True},
                                                    Model("hunyuan-video", "framepack")),
        "HunyuanImageTransformer2DModel": ({}, Model("hunyuan-image")),
        "WanTransformer3DModel": ({}, Model("wan")),
        "WanVACETransformer3DModel": ({}, Model("wan", "vace")),
        "LTXVideoTransformer3DModel": ({}, Model("ltx-video")),
        "LTX2VideoTransformer3DModel": ({}, Model("ltx-video", "2")),
        "CosmosTransformer3DModel": ({}, Model("cosmos")),
        "AuraFlowTransformer2DModel": ({}, Model("auraflow")),
        "Lumina2Transformer2DModel": ({"cap_feat_dim": 2304}, Model("lumina2")),
        "QwenImageTransformer2DModel": ({}, Model("qwen-image")),
        "ZImageTransformer2DModel": ({}, Model("z-image")),
        "MochiTransformer3DModel": ({}, Model("mochi")),
        "StableAudioDiTModel": ({}, Model("stable-audio")),
        "AllegroTransformer3DModel": ({}, Model()),
        "CogVideoXTransformer3DModel": ({}, Model()),
        "CogView4Transformer2DModel": ({}, Model()),
        "SanaTransformer2DModel": ({}, Model()),
        "DiTTransformer2DModel": ({}, Model()),
        "BriaTransformer2DModel": ({}, Model()),
        "PRXTransformer2DModel": ({}, Model()),
        "Kandinsky5Transformer3DModel": ({}, Model()),
        "OvisImageTransformer2DModel": ({}, Model()),
        "LongCatImageTransformer2DModel": ({}, Model()),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(published()))
def test_the_zoos_own_models_are_what_they_are(name: str) -> None:
    import diffusers
    import torch

    if not hasattr(diffusers, name):
        pytest.skip("this release of diffusers has no such model")
    given, expected = published()[name]
    with torch.device("meta"):
        model = getattr(diffusers, name)(**given)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert by_tensors(shapes) == expected
    assert by_tensors({PREFIXES[0] + key: shape for key, shape in shapes.items()}) == expected
    adapter = {f"transformer.{key.removesuffix('.weight')}.lora_A.weight": (16, shape[1])
               for key, shape in shapes.items() if key.endswith(".weight") and len(shape) == 2}
    assert by_tensors(adapter).family in (None, expected.family), "a LoRA is of no other family"
