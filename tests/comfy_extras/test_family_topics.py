"""The topics of model families: every node has a valid signature, and those without their network say so."""

from __future__ import annotations

import asyncio
import importlib

import pytest

from comfy_extras.absent_families import AbsentNode, FamilyAbsent

TOPICS = """
    ace ar_video audio_encoder bernini bg_removal boogu camera_angle camera_trajectory chroma_radiance
    cosmos depth_anything_3 fibo2 flux3 frame_interpolation hidream_o1 hunyuan hunyuan3d joyimage
    kandinsky5 lt lt_audio lt_upsampler mage marigold mediapipe ming minimax_h3 minimax_music mochi
    model_patch moge moss pid qwen rtdetr sam3 sam3d_body scail sdpose seedvr stable3d stable_cascade
    textgen trellis2 triposplat void wan wandancer wanmove yue2 zimage
""".split()


def nodes_of(topic):
    module = importlib.import_module(f"comfy_extras.nodes_{topic}")
    if hasattr(module, "NODE_CLASS_MAPPINGS"):
        return [node for node in module.NODE_CLASS_MAPPINGS.values() if hasattr(node, "GET_SCHEMA")]
    return asyncio.run(module.comfy_entrypoint().get_node_list())


@pytest.fixture(scope="module")
def nodes():
    found = [node for topic in TOPICS for node in nodes_of(topic)]
    return {node.GET_SCHEMA().node_id: node for node in found}


def test_names_are_unique_and_every_node_tells_what_it_is(nodes):
    assert sum(len(nodes_of(topic)) for topic in TOPICS) == len(nodes)
    for name, node in nodes.items():
        told = node.GET_NODE_INFO_V1()
        assert told["name"] == name
        assert told["category"], name


def test_every_node_without_its_network_raises_the_sentence_that_names_the_family(nodes):
    absent = {name: node for name, node in nodes.items() if issubclass(node, AbsentNode)}
    assert len(absent) >= 50
    for name, node in absent.items():
        with pytest.raises(FamilyAbsent) as told:
            node.execute()
        assert str(told.value).startswith(f"{name} needs {node.FAMILY}, a model family"), name
        assert node.FAMILY, name


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("TextEncodeQwenImageEditPlus", "clip prompt vae image1 image2 image3", "CONDITIONING"),
        ("EmptyLTXVLatentVideo", "width height length batch_size", "LATENT"),
        ("LTXVConditioning", "positive negative frame_rate", "CONDITIONING CONDITIONING"),
        ("LTXVScheduler", "steps max_shift base_shift stretch terminal latent", "SIGMAS"),
        (
            "LTXVAddGuide",
            "positive negative vae latent image frame_idx strength attention_mask iclora_parameters",
            "CONDITIONING CONDITIONING LATENT",
        ),
        ("LTXVConcatAVLatent", "video_latent audio_latent", "LATENT"),
        ("LTXVEmptyLatentAudio", "frames_number frame_rate batch_size audio_vae", "LATENT"),
        ("LatentUpscaleModelLoader", "model_name", "LATENT_UPSCALE_MODEL"),
        (
            "WanImageToVideo",
            "positive negative vae width height length batch_size clip_vision_output start_image",
            "CONDITIONING CONDITIONING LATENT",
        ),
        (
            "WanVaceToVideo",
            "positive negative vae width height length batch_size strength control_video control_masks "
            "reference_image",
            "CONDITIONING CONDITIONING LATENT INT",
        ),
        ("TrimVideoLatent", "samples trim_amount", "LATENT"),
        (
            "TextGenerate",
            "clip prompt image video audio max_length sampling_mode thinking use_default_template",
            "STRING",
        ),
        ("LoadMoGeModel", "model_name", "MOGE_MODEL"),
        ("DrawBBoxes", "image bboxes", "IMAGE"),
        ("EmptyHunyuanLatentVideo", "width height length batch_size", "LATENT"),
        (
            "TextEncodeAceStepAudio1.5",
            "clip tags lyrics seed bpm duration timesignature language keyscale "
            "generate_audio_codes cfg_scale temperature top_p top_k min_p",
            "CONDITIONING",
        ),
        (
            "MiniMaxH3ImageToVideo",
            "clip vae prompt width height length first_frame last_frame",
            "CONDITIONING LATENT",
        ),
    ],
)
def test_signatures_that_templates_rely_on(nodes, name, inputs, outputs):
    told = nodes[name].GET_NODE_INFO_V1()
    names = [one for section in ("required", "optional") for one in told["input_order"].get(section, ())]
    assert set(names) == set(inputs.split())
    assert told["output"] == outputs.split()


def test_a_model_patch_is_named_by_its_tensors():
    from comfy_extras.nodes_model_patch import USOStyleReference, kind_of_patch

    assert kind_of_patch(["feature_embedder.mid_layer_norm.bias"]) == "USO style reference"
    assert kind_of_patch(["x.control_model.input_hint_block.0.weight"]) == "SUPIR"
    assert kind_of_patch(["a"]) == "model patches of an unknown kind"
    with pytest.raises(FamilyAbsent, match="^USOStyleReference needs USO style reference, a model family"):
        USOStyleReference().apply_patch(model=None, model_patch=None, clip_vision_output=None)
