"""Nodes for the feature tests, which run in ours and in upstream's core. None needs a text encoder."""

import os
import time
import uuid

import safetensors

import folder_paths

opened = []
open_one = safetensors.safe_open


def counting(path, *args, **kwargs):
    opened.append(os.path.basename(path))
    return open_one(path, *args, **kwargs)


safetensors.safe_open = counting


class FeatureNumber:
    """A number."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 0})}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, value):
        return (value,)


class FeatureStamp(FeatureNumber):
    """The number and a text that is another one each time the node runs."""

    RETURN_TYPES = ("STRING",)

    def run(self, value):
        return (f"{value} {uuid.uuid4()}",)


class FeatureSave:
    """Shows a text, and writes it to a new file of the output folder."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": ""})}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, text):
        path = os.path.join(folder_paths.get_output_directory(), f"saved_{uuid.uuid4()}.txt")
        with open(path, "w") as file:
            file.write(text)
        return {"ui": {"text": [text]}}


class FeatureExpand(FeatureNumber):
    """Expands into a stamp, which it gives, and a node that saves it."""

    RETURN_TYPES = ("STRING",)

    def run(self, value):
        from comfy_execution.graph_utils import GraphBuilder

        builder = GraphBuilder()
        stamp = builder.node("FeatureStamp", value=value)
        builder.node("FeatureSave", text=stamp.out(0))
        return {"result": (stamp.out(0),), "expand": builder.finalize()}


class FeatureWait:
    """Ends when a file of the output folder is there."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"file": ("STRING", {"default": ""})}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, file):
        end = time.monotonic() + 60
        while not os.path.exists(os.path.join(folder_paths.get_output_directory(), file)):
            if time.monotonic() > end:
                raise TimeoutError(f"nobody has made {file}")
            time.sleep(0.02)
        return {"ui": {"text": ["waited"]}}


class FeatureText:
    """What a text encoder would make of some text, always the same."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": ("INT", {"default": 0})}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, seed):
        import torch

        return ([[torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(seed)), {}]],)


class FeatureWeights:
    """Puts a model on its device and tells which module it is, where its weights are, and which files were
    opened until now.
    """

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "trouble": ("STRING", {"default": ""})}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, model, trouble):
        import torch

        from comfy import model_management

        model_management.load_models_gpu([model])
        if trouble == "full":
            raise torch.OutOfMemoryError("the device is out of memory")
        places = [id(model.model), *(weight.data_ptr() for weight in model.model.parameters())]
        return {"ui": {"places": [str(hash(tuple(places)))], "opened": list(opened)}}


class FeatureEmbedding(FeatureSave):
    """Shows the sizes of an embedding as a text encoder of 768 values reads it; nothing where it has none."""

    def run(self, text):
        from comfy.sd1_clip import load_embed

        found = load_embed(text, folder_paths.get_folder_paths("embeddings"), 768, "clip_l")
        return {"ui": {"sizes": [] if found is None else list(found.shape)}}


NODE_CLASS_MAPPINGS = {
    made.__name__: made
    for made in (
        FeatureNumber, FeatureStamp, FeatureSave, FeatureExpand, FeatureWait, FeatureText, FeatureWeights,
        FeatureEmbedding,
    )
}  # fmt: skip
