"""Nodes that prepare, save and load data for trainings. `nodes_dataset` registers them."""

from __future__ import annotations

import json
import logging
import os

import folder_paths
from comfy_api.latest import io
from comfy_extras.dataset_files import inside

log = logging.getLogger(__name__)


def _same_number(latents, conditioning):
    if len(latents) != len(conditioning):
        raise ValueError(
            f"There are {len(latents)} latents and {len(conditioning)} conditionings. Give one for each."
        )


class MakeTrainingDataset(io.ComfyNode):
    """Pictures and texts as a model sees them."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MakeTrainingDataset",
            display_name="Make Training Dataset",
            category="model/training",
            description="Encodes pictures and their texts for a training.",
            search_aliases=["encode dataset"],
            inputs=[
                io.Image.Input("images"),
                io.Vae.Input("vae"),
                io.Clip.Input("clip"),
                io.String.Input(
                    "texts",
                    force_input=True,
                    optional=True,
                    tooltip="A text for each picture, or one for all; none is an empty text.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latents", is_output_list=True),
                io.Conditioning.Output(display_name="conditioning", is_output_list=True),
            ],
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, vae, clip, texts=None):
        texts = list(texts or [""])
        texts = texts * len(images) if len(texts) == 1 else texts
        if len(texts) != len(images):
            raise ValueError(
                f"There are {len(texts)} texts for {len(images)} pictures. Give one for each, or one for all."
            )
        latents = [{"samples": vae[0].encode(image[..., :3])} for image in images]
        encoded = {
            text: clip[0].encode_from_tokens_scheduled(clip[0].tokenize(text))
            for text in dict.fromkeys(texts)
        }
        return io.NodeOutput(latents, [encoded[text] for text in texts])


def _dataset_folder(name):
    """Where a set is, or will be. ValueError for names that cannot be used."""
    roots = folder_paths.get_folder_paths("datasets")
    paths = [inside(root, name) for root in roots]
    if any(os.path.realpath(path) == os.path.realpath(root) for path, root in zip(paths, roots)):
        raise ValueError(
            f"folder_name is {name!r}. Name a folder inside of the datasets folder, such as 'cats'."
        )
    return next((path for path in paths if os.path.isdir(path)), paths[0])


def _is_dataset(names):
    return "metadata.json" in names or any(name.endswith(".safetensors") for name in names)


def _datasets():
    """Names of the sets in all folders for them."""
    found = set()
    for root in folder_paths.get_folder_paths("datasets"):
        seen = set()
        for path, folders, names in os.walk(root, followlinks=True):
            if os.path.realpath(path) in seen:  # a link that leads back
                folders.clear()
            seen.add(os.path.realpath(path))
            if path != root and _is_dataset(names):
                found.add(os.path.relpath(path, root).replace(os.sep, "/"))
                folders.clear()
    return sorted(found)


class SaveTrainingDataset(io.ComfyNode):
    """Training data on disk."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveTrainingDataset",
            display_name="Save Training Dataset",
            category="model/training",
            description="Saves latents and conditionings for later trainings.",
            search_aliases=["export dataset", "save dataset"],
            inputs=[
                io.Latent.Input("latents"),
                io.Conditioning.Input("conditioning"),
                io.String.Input(
                    "folder_name",
                    default="training_dataset",
                    tooltip="A folder inside of the datasets folder.",
                ),
                io.Int.Input(
                    "shard_size",
                    default=1000,
                    min=1,
                    max=100000,
                    advanced=True,
                    tooltip="How many are in one file.",
                ),
            ],
            outputs=[],
            is_output_node=True,
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, latents, conditioning, folder_name, shard_size):
        import torch

        _same_number(latents, conditioning)
        size, folder = shard_size[0], inside(folder_paths.get_folder_paths("datasets")[0], folder_name[0])
        _dataset_folder(folder_name[0])  # refuses names of no folder
        os.makedirs(folder, exist_ok=True)
        starts = range(0, len(latents), size)
        for number, start in enumerate(starts):
            part = slice(start, start + size)
            content = {"latents": latents[part], "conditioning": conditioning[part]}
            torch.save(content, os.path.join(folder, f"shard_{number:04d}.pkl"))
        facts = {"num_samples": len(latents), "num_shards": len(starts), "shard_size": size}
        with open(os.path.join(folder, "metadata.json"), "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=2)
        log.info("%d samples are saved in %s.", len(latents), folder)
        return io.NodeOutput()


class LoadTrainingDataset(io.ComfyNode):
    """Training data from disk."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadTrainingDataset",
            display_name="Load Training Dataset",
            category="model/training",
            description="Loads latents and conditionings that were saved.",
            search_aliases=["import dataset", "training data"],
            inputs=[
                io.Combo.Input("folder_name", options=_datasets(), tooltip="A set in the datasets folder."),
            ],
            outputs=[
                io.Latent.Output(display_name="latents", is_output_list=True),
                io.Conditioning.Output(display_name="conditioning", is_output_list=True),
            ],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, folder_name):
        import torch

        folder = _dataset_folder(folder_name)
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        shards = [name for name in names if name.startswith("shard_") and name.endswith(".pkl")]
        if not shards:
            raise ValueError(
                f"There is no training data in {folder}. Save some first (Save Training Dataset)."
            )
        latents, conditioning = [], []
        for name in shards:
            # Files may come from others: only tensors and plain values are read.
            content = torch.load(os.path.join(folder, name), weights_only=True)
            latents += content["latents"]
            conditioning += content["conditioning"]
        return io.NodeOutput(latents, conditioning)


class ResolutionBucket(io.ComfyNode):
    """Latents of one size together."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ResolutionBucket",
            display_name="Resolution Bucket",
            category="model/training",
            description="Puts latents of one size into one batch, with their conditionings.",
            search_aliases=["bucket by resolution", "group by resolution", "batch by resolution"],
            inputs=[
                io.Latent.Input("latents"),
                io.Conditioning.Input("conditioning"),
            ],
            outputs=[
                io.Latent.Output(display_name="latents", is_output_list=True),
                io.Conditioning.Output(display_name="conditioning", is_output_list=True),
            ],
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, latents, conditioning):
        import torch

        _same_number(latents, conditioning)
        buckets = {}
        for latent, entries in zip(latents, conditioning):
            for sample, entry in zip(latent["samples"], entries):
                buckets.setdefault(sample.shape[-2:], []).append((sample, entry))
        batches = [list(zip(*bucket)) for bucket in buckets.values()]
        return io.NodeOutput(
            [{"samples": torch.stack(samples)} for samples, _ in batches],
            [list(entries) for _, entries in batches],
        )
