"""What kind of model file these weights are, by the names of a few: to say in an error where a file belongs.

Pure: names only. Families of diffusion models are `comfy.families.recognise`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class FileKind:
    """A kind of file: its name with an article, the folder below models/, and the node that loads it.

    A file is of this kind when a name contains one of `parts`, or is one of `names` (behind any prefix that
    ends in a dot).
    """

    title: str
    folder: str
    node: str
    parts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def matches(self, keys: Iterable[str]) -> bool:
        endings = tuple(f".{name}" for name in self.names)
        return any(
            key in self.names or key.endswith(endings) or any(part in key for part in self.parts)
            for key in keys
        )

    def __str__(self) -> str:
        return f"It looks like {self.title}: put it into models/{self.folder} and load it with {self.node}."


# The first that matches counts, so the most specific names come first.
KINDS = (
    FileKind("a LoRA", "loras", "a LoRA loader on top of a model",
             ("lora_up.", "lora_down.", "lora_A.", "lora_B.", "hada_w1_a", "lokr_w1", ".lora.up.")),
    FileKind("a ControlNet", "controlnet", "ControlNetLoader",
             ("zero_convs.", "controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_blocks.",
              "input_hint_block.", "lora_controlnet")),
    FileKind("a T2I-Adapter", "controlnet", "ControlNetLoader",
             ("adapter.body.", "body.0.resnets.0.block1."), ("body.0.block1.weight",)),
    FileKind("an IP-Adapter", "ipadapter", "the nodes of a pack for IP-Adapters",
             ("ip_adapter.", "image_proj.")),
    FileKind("a style model", "style_models", "StyleModelLoader", ("redux_up.", "style_embedding")),
    FileKind("a CLIP vision model", "clip_vision", "CLIPVisionLoader",
             ("vision_model.encoder.layers.", "visual.transformer.resblocks.")),
    FileKind("a text encoder", "text_encoders", "CLIPLoader or DualCLIPLoader", (),
             ("text_model.embeddings.token_embedding.weight", "token_embedding.weight",
              "encoder.block.0.layer.0.SelfAttention.q.weight", "model.embed_tokens.weight")),
    FileKind("a textual inversion embedding", "embeddings", "embedding:NAME in a prompt", (),
             ("emb_params", "string_to_param")),
    FileKind("an upscale model", "upscale_models", "UpscaleModelLoader",
             ("RDB1.conv1.", "rdb1.conv1.", "residual_group."), ("conv_first.weight",)),
    FileKind("a tiny autoencoder", "vae_approx", "VAELoader as taesd", (),
             ("taesd_encoder.0.weight", "taesd_decoder.1.weight")),
)  # fmt: skip
VAE = FileKind("a VAE alone", "vae", "VAELoader")
CHECKPOINT = FileKind("a whole checkpoint", "checkpoints", "CheckpointLoaderSimple")
DIFFUSION_MODEL = FileKind("a diffusion model alone", "diffusion_models", "UNETLoader")
_OF_VAES = ("encoder.", "decoder.", "quant_", "post_quant_", "bn.")
_PARTS_OF_CHECKPOINTS = ("first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.")


def kind_of(keys: Iterable[str], *, is_diffusion_model: bool = False) -> FileKind | None:
    """The kind of a file with these weights; `is_diffusion_model`: a known family's is among them."""
    keys = list(keys)
    if is_diffusion_model:
        return CHECKPOINT if any(key.startswith(_PARTS_OF_CHECKPOINTS) for key in keys) else DIFFUSION_MODEL
    found = next((kind for kind in KINDS if kind.matches(keys)), None)
    if found is None and keys and all(key.startswith(_OF_VAES) for key in keys):
        return VAE
    return found
