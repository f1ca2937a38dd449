"""Textual inversion embeddings: `embedding:name` in a prompt puts trained vectors in the place of tokens."""

from __future__ import annotations

import logging
import os

import torch

import comfy.utils
from comfy.errors import ModelFileError
from comfy_depot import hooks as depot

EXTENSIONS = (".safetensors", ".pt", ".bin")


def expand_directory_list(directories) -> list[str]:
    """The folders and all folders below them."""
    found = {str(folder) for folder in directories}
    for folder in list(found):
        found.update(path for path, _, _ in os.walk(folder, followlinks=True))
    return list(found)


def find_embedding(name: str, directories) -> str | None:
    """The file of an embedding, with or without its extension; never one outside the folders."""
    for folder in expand_directory_list([directories] if isinstance(directories, str) else directories):
        folder = os.path.abspath(folder)
        path = os.path.abspath(os.path.join(folder, name))
        if not path.startswith(folder + os.sep):
            continue
        for candidate in (path, *(path + extension for extension in EXTENSIONS)):
            if os.path.isfile(candidate):
                return candidate
    return None


@depot.fetches_embeddings
def load_embed(embedding_name, embedding_directory, embedding_size, embed_key=None) -> torch.Tensor | None:
    """Vectors (N, embedding_size) of an embedding; None, with a line in the log, where there are none."""
    path = find_embedding(embedding_name, embedding_directory)
    if path is None:
        return None
    try:
        return _vectors_in(comfy.utils.load_torch_file(path, safe_load=True), embedding_size, embed_key)
    except (ModelFileError, OSError) as error:
        logging.warning("The embedding '%s' was skipped: %s", embedding_name, error)
        return None


def _vectors_in(content, embedding_size: int, embed_key: str | None):
    """The layouts in use: A1111's `string_to_param`, lists, one key per text encoder, bundled in a LoRA."""
    if isinstance(content, list):
        vectors = [tensor for entry in content for tensor in entry.values()]
        fitting = [v.reshape(-1, v.shape[-1]) for v in vectors if v.shape[-1] == embedding_size]
        return torch.cat(fitting, dim=0) if fitting else None
    if "string_to_param" in content:
        return next(iter(content["string_to_param"].values()))
    if embed_key is not None and embed_key in content:
        return content[embed_key]
    for suffix in (".string_to_param.*", f".{embed_key}"):
        bundled = [v for key, v in content.items() if key.startswith("bundle_emb.") and key.endswith(suffix)]
        if bundled:
            return torch.cat(bundled, dim=0)
    return next(iter(content.values()), None)
