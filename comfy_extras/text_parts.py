"""Prompts in parts, one for each text encoder of a model."""

from __future__ import annotations

from comfy_api.latest import io


def text_input(name: str):
    """A prompt."""
    return io.String.Input(name, multiline=True, dynamic_prompts=True)


def tokens_for(clip, part: str, text: str, family: str):
    """The tokens of one part, such as "t5xxl".

    Raises:
        ValueError: the CLIP has no such encoder; the message names the family that has.
    """
    tokens = clip.tokenize(text)
    if part not in tokens:
        raise ValueError(
            f"This CLIP has no encoder '{part}', it has {', '.join(tokens)}. "
            f"The node is for {family}: load that model's text encoders, or take CLIP Text Encode."
        )
    return tokens[part]


def load_encoders(*names: str):
    """The CLIP of several files of text encoders. Raises UnknownArchitecture for an unknown set."""
    import folder_paths

    paths = [folder_paths.get_full_path_or_raise("text_encoders", name) for name in names]
    import comfy.sd

    embeddings = folder_paths.get_folder_paths("embeddings")
    return comfy.sd.load_clip(ckpt_paths=paths, embedding_directory=embeddings)


def encoder_inputs(count: int) -> list:
    """A list of files for each encoder."""
    import folder_paths

    files = folder_paths.get_filename_list("text_encoders")
    return [io.Combo.Input(f"clip_name{number}", options=files) for number in range(1, count + 1)]
