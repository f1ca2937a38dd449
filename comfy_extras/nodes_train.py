"""LoRAs that were just trained: put on a model, saved, and the course of their loss drawn.

Training itself is not in this version; `TrainLoraNode` says so when it runs.
"""

from __future__ import annotations

import os

import folder_paths
from comfy_api.latest import ComfyExtension, io, ui

LoraModel = io.Custom("LORA_MODEL")
LossMap = io.Custom("LOSS_MAP")
NO_LORA = "[None]"


class TrainLoraNode(io.ComfyNode):
    """The signature of the trainer."""

    @classmethod
    def define_schema(cls):
        def number(name, default, low, high):
            return io.Int.Input(name, default=default, min=low, max=high)

        def choice(name, *options):
            return io.Combo.Input(name, options=list(options), default=options[0])

        return io.Schema(
            node_id="TrainLoraNode",
            display_name="Train LoRA",
            category="model/training",
            description="Trains a LoRA. Not in this version: it stops with an error that says what to do.",
            is_experimental=True,
            is_input_list=True,
            inputs=[
                io.Model.Input("model"),
                io.Latent.Input("latents"),
                io.Conditioning.Input("positive"),
                number("batch_size", 1, 1, 10000),
                number("grad_accumulation_steps", 1, 1, 1024),
                number("steps", 16, 1, 100000),
                io.Float.Input("learning_rate", default=0.0005, min=1e-07, max=1.0, step=1e-07),
                number("rank", 8, 1, 128),
                choice("optimizer", "AdamW", "Adam", "SGD", "RMSprop"),
                choice("loss_function", "MSE", "L1", "Huber", "SmoothL1"),
                number("seed", 0, 0, 0xFFFFFFFFFFFFFFFF),
                choice("training_dtype", "bf16", "fp32", "none"),
                choice("lora_dtype", "bf16", "fp32"),
                io.Boolean.Input("quantized_backward", default=False),
                choice("algorithm", "LoRA", "LoHa", "LoKr", "OFT"),
                io.Boolean.Input("gradient_checkpointing", default=True),
                number("checkpoint_depth", 1, 1, 5),
                io.Boolean.Input("offloading", default=False),
                choice("existing_lora", NO_LORA, *folder_paths.get_filename_list("loras")),
                io.Boolean.Input("bucket_mode", default=False),
                io.Boolean.Input("bypass_mode", default=False),
            ],
            outputs=[
                LoraModel.Output(display_name="lora"),
                LossMap.Output(display_name="loss_map"),
                io.Int.Output(display_name="steps"),
            ],
        )

    @classmethod
    def execute(cls, **_values):
        raise NotImplementedError(
            "Train LoRA is not in this version. Train with a trainer such as kohya's scripts, put the file "
            "into models/loras and load it with Load LoRA."
        )


class LoraModelLoader(io.ComfyNode):
    """A LoRA's tensors on a model."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoraModelLoader",
            display_name="Load LoRA Model",
            category="model/loaders",
            description="Changes a model by a LoRA that was trained in this workflow.",
            is_experimental=True,
            inputs=[
                io.Model.Input("model"),
                LoraModel.Input("lora"),
                io.Float.Input("strength_model", default=1.0, min=-100.0, max=100.0),
                io.Boolean.Input(
                    "bypass", default=False, tooltip="Beside the layers instead of in the weights; slower."
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, model, lora, strength_model, bypass=False):
        if strength_model == 0:
            return io.NodeOutput(model)
        import comfy.sd

        load = comfy.sd.load_bypass_lora_for_models if bypass else comfy.sd.load_lora_for_models
        return io.NodeOutput(load(model, None, lora, strength_model, 0)[0])


class SaveLoRA(io.ComfyNode):
    """A LoRA's tensors as a file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveLoRA",
            display_name="Save LoRA Weights",
            category="model/merging",
            description="Saves a LoRA to the output folder.",
            search_aliases=["export lora"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                LoraModel.Input("lora"),
                io.String.Input("prefix", default="loras/ComfyUI_trained_lora", multiline=False),
                io.Int.Input("steps", optional=True, tooltip="For the name: how long it was trained."),
            ],
        )

    @classmethod
    def execute(cls, lora, prefix, steps=None):
        import comfy.utils

        folder, name, counter, *_ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_output_directory()
        )
        trained = "" if steps is None else f"{steps}_steps_"
        path = os.path.join(folder, f"{name}_{trained}{counter:05}_.safetensors")
        comfy.utils.save_torch_file({key: t.contiguous() for key, t in lora.items()}, path)
        return io.NodeOutput()


# Of the picture of a loss, in pixels.
GRAPH_SIZE = (840, 520)
MARGIN = 40


def draw_losses(losses: list[float]):
    """A picture (1, H, W, 3) of numbers from left to right, the largest at the top.

    Raises:
        ValueError: there are no numbers.
    """
    import numpy
    import torch
    from PIL import Image, ImageDraw

    if not losses:
        raise ValueError("The loss map is empty: nothing was trained. Train at least one step.")
    width, height = (side - MARGIN for side in GRAPH_SIZE)
    low, high = min(losses), max(losses)
    scale = (height - 1) / (high - low) if high > low else 0.0
    picture = Image.new("RGB", GRAPH_SIZE, "white")
    draw = ImageDraw.Draw(picture)
    across = max(1, len(losses) - 1)
    points = [
        (MARGIN + int(step / across * (width - 1)), int((high - loss) * scale))
        for step, loss in enumerate(losses)
    ]
    draw.line(points if len(points) > 1 else points * 2, fill="blue", width=2)
    draw.line([(MARGIN, 0), (MARGIN, height), (MARGIN + width, height)], fill="black", width=2)
    draw.text((2, 2), f"{high:.3g}", fill="black")
    draw.text((2, height - 12), f"{low:.3g}", fill="black")
    draw.text((2, height // 2), "Loss", fill="black")
    draw.text((MARGIN + width // 2, height + 12), f"Steps: {len(losses)}", fill="black")
    return torch.from_numpy(numpy.asarray(picture, dtype=numpy.float32) / 255.0)[None]


class LossGraphNode(io.ComfyNode):
    """See `draw_losses`."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LossGraphNode",
            display_name="Plot Loss Graph",
            category="model/training",
            description="Draws how the loss went.",
            search_aliases=["training chart", "training visualization", "plot loss"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                LossMap.Input("loss"),
                io.String.Input("filename_prefix", default="loss_graph", multiline=False),
            ],
        )

    @classmethod
    def execute(cls, loss, filename_prefix):
        return io.NodeOutput(ui=ui.PreviewImage(draw_losses(loss["loss"]), cls=cls))


class TrainingExtension(ComfyExtension):
    async def get_node_list(self):
        return [TrainLoraNode, LoraModelLoader, SaveLoRA, LossGraphNode]


async def comfy_entrypoint():
    return TrainingExtension()
