"""SD3's text encoders: CLIP's two side by side, then T5; zeros where one is missing."""

import torch

from comfy.sd3_clip import SD3ClipModel, t5_xxl_detect
from comfy.text_encoders.long_clipl import model_options_long_clip


def encode(**which):
    """The stand-ins give states that tell where they end up; the assembly is what is tested."""
    model = SD3ClipModel(clip_l=False, clip_g=False, t5=False, **which)

    class Encoder:
        def __init__(self, value, tokens, width, pooled):
            self.out = torch.full((1, tokens, width), value), torch.full((1, pooled), value)

        def encode_token_weights(self, pairs):
            return self.out

    return model, Encoder


def test_tokens_and_pooled_vectors_stand_where_the_model_expects_them():
    model, encoder = encode()
    model.__dict__["clip_l"] = encoder(1.0, 77, 768, 768)
    model.__dict__["clip_g"] = encoder(2.0, 77, 1280, 1280)
    model.__dict__["t5xxl"] = encoder(3.0, 80, 4096, 1)
    for name in ("clip_l", "clip_g", "t5xxl"):
        model._modules.pop(name, None)
    pairs = {"l": [[(1, 1.0)]], "g": [[(1, 1.0)]], "t5xxl": [[(1, 1.0)]]}
    out, pooled, extra = model.encode_token_weights(pairs)
    assert out.shape == (1, 157, 4096) and pooled.shape == (1, 2048) and extra == {}
    assert out[0, 0, [0, 767, 768, 2047, 2048]].tolist() == [1.0, 1.0, 2.0, 2.0, 0.0]
    assert out[0, 77, 0] == 3.0 and pooled[0, [0, 768]].tolist() == [1.0, 2.0]


def test_without_encoders_there_are_zeros():
    model, _ = encode()
    out, pooled, _ = model.encode_token_weights({"l": [], "g": [], "t5xxl": []})
    assert out.shape == (1, 77, 4096) and not out.any() and pooled.shape == (1, 2048)


def test_a_file_tells_the_dtype_of_its_t5_and_how_many_positions_its_clip_has():
    assert t5_xxl_detect({"encoder.final_layer_norm.weight": torch.ones(1).half()}) == {
        "dtype_t5": torch.float16
    }
    assert t5_xxl_detect({}) == {}
    weights = {"text_model.embeddings.position_embedding.weight": torch.ones(248, 8)}
    data, options = model_options_long_clip(weights, {}, {})
    assert (
        data == {"clip_l_max_length": 248}
        and options["clip_l_model_config"]["max_position_embeddings"] == 248
    )
    assert model_options_long_clip({}, {"a": 1}, {"b": 2}) == ({"a": 1}, {"b": 2})
