"""Vision models beside transformers' own, in each layout of files; pixels beside transformers' processors."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import comfy.clip_vision
from comfy.errors import ModelFileError, UnknownArchitecture, UnreadableModelFile
from comfy_depot.residency import Part
from tests.comfy import tiny_sd1, tiny_vision


def write(tmp_path, weights, name="vision.safetensors"):
    path = tmp_path / name
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path)
    return str(path)


def expected_of(reference, model, image, crop=True):
    """transformers' output for the same pixels."""
    statistics = {"mean": model.image_mean, "std": model.image_std}
    pixels = comfy.clip_vision.clip_preprocess(image, model.image_size, crop=crop, **statistics)
    with torch.no_grad():
        return reference(pixel_values=pixels, output_hidden_states=True)


@pytest.mark.parametrize("layout", ["transformers", "visual.", ""])
@pytest.mark.parametrize("crop", [True, False])
def test_clip_equals_transformers_in_each_layout(tmp_path, layout, crop):
    reference = tiny_vision.clip()
    weights = reference.state_dict()
    if layout != "transformers":
        weights = tiny_vision.in_open_clip(reference, layout)
    model = comfy.clip_vision.load(write(tmp_path, weights))
    assert model.image_size == 56 and model.dtype is torch.float16
    image = tiny_vision.pictures()
    out, expected = model.encode_image(image, crop=crop), expected_of(reference, model, image, crop)
    torch.testing.assert_close(out["last_hidden_state"], expected.last_hidden_state)
    torch.testing.assert_close(out.penultimate_hidden_states, expected.hidden_states[-2])
    torch.testing.assert_close(out.image_embeds, expected.image_embeds)
    assert out.mm_projected is None and not torch.equal(out.image_embeds[0], out.image_embeds[1])


def test_a_file_with_both_halves_of_clip_gives_its_vision_model(tmp_path):
    reference = tiny_vision.clip()
    text = {f"text_model.{key}": tensor for key, tensor in tiny_sd1.tiny_text_encoder().state_dict().items()}
    both = {**reference.state_dict(), **text, "logit_scale": torch.ones(())}
    both["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    image = tiny_vision.pictures()
    model = comfy.clip_vision.load(write(tmp_path, both))
    expected = expected_of(reference, model, image).image_embeds
    torch.testing.assert_close(model.encode_image(image).image_embeds, expected)


def test_deep_models_have_the_exact_activation_and_wide_ones_sixteen_heads(tmp_path):
    reference = tiny_vision.clip(num_hidden_layers=32, hidden_size=64, num_attention_heads=1, image_size=28,
                                 hidden_act="gelu")  # fmt: skip
    model, image = comfy.clip_vision.load(write(tmp_path, reference.state_dict())), tiny_vision.pictures()
    expected = expected_of(reference, model, image).image_embeds
    torch.testing.assert_close(model.encode_image(image).image_embeds, expected, rtol=1e-4, atol=1e-4)
    for width, heads in ((768, 12), (1024, 16), (1152, 16), (1280, 16), (1664, 16)):
        shape = comfy.clip_vision.clip_image.VisionShape("clip", width, 4 * width, 24, 14, 16, 768, None)
        assert shape.heads == heads and shape.image_size == 224


def test_siglip_is_normalised_has_all_layers_and_needs_no_pooling_head(tmp_path):
    reference = tiny_vision.siglip()
    model = comfy.clip_vision.load(write(tmp_path, tiny_vision.siglip_weights(reference)))
    image = tiny_vision.pictures()
    out, expected = model.encode_image(image), expected_of(reference, model, image)
    torch.testing.assert_close(out.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(out.image_embeds, out.last_hidden_state) and model.image_mean == [0.5] * 3
    layers = torch.stack(expected.hidden_states[1:], dim=1)
    torch.testing.assert_close(out.all_hidden_states[:, :-1], layers[:, :-1])
    torch.testing.assert_close(out.penultimate_hidden_states, layers[:, -2])


@pytest.mark.parametrize(("patch", "patches", "size"), [(14, 27, 384), (16, 32, 512), (14, 16, 224)])
def test_siglip_takes_the_published_sizes_of_pictures(patch, patches, size):
    shape = comfy.clip_vision.clip_image.VisionShape("siglip", 1152, 4304, 27, patch, patches, None, None)
    assert (shape.image_size, shape.heads, shape.activation) == (size, 16, "gelu_pytorch_tanh")


def test_the_projector_of_llava_leads_patches_to_a_language_model(tmp_path):
    reference = tiny_vision.clip()
    torch.manual_seed(3)
    first, second = torch.nn.Linear(128, 80).half().float(), torch.nn.Linear(80, 80).half().float()
    names = {"linear_1": first, "linear_2": second}
    projector = {
        f"multi_modal_projector.{name}.{key}": tensor
        for name, layer in names.items()
        for key, tensor in layer.state_dict().items()
    }
    model = comfy.clip_vision.load(write(tmp_path, {**reference.state_dict(), **projector}))
    image = tiny_vision.pictures()
    out = model.encode_image(image)
    expected = second(torch.nn.functional.gelu(first(out.penultimate_hidden_states[:, 1:])))
    torch.testing.assert_close(out.mm_projected, expected.detach())


def test_pixels_are_those_of_transformers_processor():
    """It resizes with Pillow, in 8 bits after each direction: two levels of 255 may differ."""
    mean, deviation = (
        torch.tensor(numbers)[:, None, None]
        for numbers in (comfy.clip_vision.clip_image.CLIP_MEAN, comfy.clip_vision.clip_image.CLIP_STD)
    )
    image = (tiny_vision.pictures(batch=1, height=300, width=450) * 255).round() / 255
    pillow = Image.fromarray((image[0] * 255).round().byte().numpy())
    expected = CLIPImageProcessorPil()(images=pillow, return_tensors="pt").pixel_values
    levels = (comfy.clip_vision.clip_preprocess(image) - expected).abs() * deviation * 255
    assert levels.max() <= 2.01 and levels.mean() < 0.3
    cut = (expected * deviation + mean).movedim(1, -1)  # of the right size, it is only normalised
    torch.testing.assert_close(comfy.clip_vision.clip_preprocess(cut), expected, atol=1e-5, rtol=0)


def test_an_alpha_channel_is_left_out_and_without_a_crop_the_edges_stay():
    image = tiny_vision.pictures(channels=4, height=60, width=120)
    found = comfy.clip_vision.clip_preprocess(image, 30, mean=[0.0] * 3, std=[1.0] * 3)
    assert torch.equal(found, comfy.clip_vision.clip_preprocess(image[..., :3], 30, [0.0] * 3, [1.0] * 3))
    marked = torch.zeros(1, 60, 120, 3)
    marked[:, :, :20] = 1.0
    cropped = comfy.clip_vision.clip_preprocess(marked, 30, [0.0] * 3, [1.0] * 3)
    whole = comfy.clip_vision.clip_preprocess(marked, 30, [0.0] * 3, [1.0] * 3, crop=False)
    assert cropped[..., 0].max() == 0 and whole[..., 0].min() == 1


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        ({"lora_unet_mid.lora_down.weight": torch.zeros(1)}, "looks like a LoRA"),
        ({"text_model.embeddings.token_embedding.weight": torch.zeros(1)}, "looks like a text encoder"),
        ({"redux_up.weight": torch.zeros(1)}, "looks like a style model"),
        ({"some.thing": torch.zeros(1)}, "holds 1 tensors, such as 'some.thing'"),
        ({}, r"holds 0 tensors\."),
        (None, "looks like a whole checkpoint"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_choose(tmp_path, weights, what):
    path = write(tmp_path, tiny_sd1.checkpoint() if weights is None else weights)
    with pytest.raises(
        UnknownArchitecture, match=f"holds no CLIP vision model .*It {what}.*Choose a CLIP vision"
    ):
        comfy.clip_vision.load(path)


def test_an_incomplete_file_says_which_weights_are_missing(tmp_path):
    weights = dict(tiny_vision.clip().state_dict())
    del weights["vision_model.post_layernorm.bias"]
    with pytest.raises(
        ModelFileError, match=r"vision.safetensors.*lacks weights \(1\): .*post_layernorm.bias"
    ):
        comfy.clip_vision.load(write(tmp_path, weights))
    first = "vision_model.encoder.layers.0.mlp.fc1.weight"
    del weights[first]
    with pytest.raises(ModelFileError, match=f"lacks the weight {first}"):
        comfy.clip_vision.load(write(tmp_path, weights))


def test_a_model_for_pictures_that_are_no_squares_is_refused(tmp_path):
    weights = dict(tiny_vision.clip().state_dict())
    weights["vision_model.embeddings.position_embedding.weight"] = torch.zeros(1 + 12, 128)
    with pytest.raises(ModelFileError, match="12 patches, which make no square"):
        comfy.clip_vision.load(write(tmp_path, weights))


def test_a_truncated_file_is_said_to_be_one(tmp_path):
    path = tmp_path / "vision.safetensors"
    write(tmp_path, tiny_vision.clip().state_dict())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableModelFile, match="vision.safetensors"):
        comfy.clip_vision.load(str(path))


def test_a_model_that_stays_in_memory_is_given_out_as_clones(tmp_path):
    model = comfy.clip_vision.load(write(tmp_path, tiny_vision.clip().state_dict()))
    image = tiny_vision.pictures()
    expected, part = model.encode_image(image).image_embeds, Part(model)
    clone = part.clone()
    assert clone.model is model.model and clone.patcher is not model.patcher
    assert torch.equal(clone.encode_image(image).image_embeds, expected)
