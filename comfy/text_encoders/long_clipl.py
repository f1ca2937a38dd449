"""CLIP text encoders that were trained with more positions than 77."""

_POSITIONS = "text_model.embeddings.position_embedding.weight"
_LAYER = "text_model.encoder.layers.{}.mlp.fc1.weight"


def model_options_long_clip(sd, tokenizer_data, model_options):
    """(tokenizer_data, model_options) that tell how many positions the encoder in `sd` has."""
    for key, name in (
        (f"clip_g.{_POSITIONS}", "clip_g"),
        (f"clip_l.{_POSITIONS}", "clip_l"),
        (_POSITIONS, "clip_g" if _LAYER.format(30) in sd else "clip_l"),
    ):
        if key in sd:
            count = sd[key].shape[0]
            config = {**model_options.get("model_config", {}), "max_position_embeddings": count}
            tokenizer_data = {**tokenizer_data, f"{name}_max_length": count}
            return tokenizer_data, {**model_options, f"{name}_model_config": config}
    return tokenizer_data, model_options
