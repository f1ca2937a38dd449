"""Merging with a ratio for each block of a model: what blocks a family has is data.

The knobs are the beginnings of names in the family's checkpoints, so a node merges any two models that have
them, whether or not it is made for their family.
"""

from __future__ import annotations

from comfy_extras.core_inputs import float_input
from comfy_extras.nodes_model_merging import ModelMergeBlocks


def _numbered(begin: str, count: int, end: str = ".") -> list[str]:
    return [f"{begin}{number}{end}" for number in range(count)]


def _unet(blocks: int, end: str) -> list[str]:
    parts = (("input_blocks.", blocks), ("middle_block.", 3), ("output_blocks.", blocks))
    return [
        "time_embed.", "label_emb.",
        *(name for begin, count in parts for name in _numbered(begin, count, end)), "out.",
    ]  # fmt: skip


def _sd3(blocks: int) -> list[str]:
    embedders = ["pos_embed.", "x_embedder.", "context_embedder.", "y_embedder.", "t_embedder."]
    return [*embedders, *_numbered("joint_blocks.", blocks), "final_layer."]


def _cosmos(blocks: int) -> list[str]:
    embedders = ["pos_embedder.", "extra_pos_embedder.", "x_embedder.", "t_embedder.", "affline_norm."]
    return [*embedders, *_numbered("blocks.block", blocks), "final_layer."]


def _cosmos_predict2(blocks: int) -> list[str]:
    embedders = ["pos_embedder.", "x_embedder.", "t_embedder.", "t_embedding_norm."]
    return [*embedders, *_numbered("blocks.", blocks), "final_layer."]


BLOCKS: dict[str, list[str]] = {
    "ModelMergeSD1": _unet(12, "."),
    "ModelMergeSD2": _unet(12, "."),
    "ModelMergeSDXL": _unet(9, ""),
    "ModelMergeSD3_2B": _sd3(24),
    "ModelMergeAuraflow": [
        "init_x_linear.", "positional_encoding", "cond_seq_linear.", "register_tokens", "t_embedder.",
        *_numbered("double_layers.", 4), *_numbered("single_layers.", 32), "modF.", "final_linear.",
    ],
    "ModelMergeFlux1": [
        "img_in.", "time_in.", "guidance_in", "vector_in.", "txt_in.", *_numbered("double_blocks.", 19),
        *_numbered("single_blocks.", 38), "final_layer.",
    ],
    "ModelMergeSD35_Large": _sd3(38),
    "ModelMergeMochiPreview": [
        "pos_frequencies.", "t_embedder.", "t5_y_embedder.", "t5_yproj.", *_numbered("blocks.", 48),
        "final_layer.",
    ],
    "ModelMergeLTXV": [
        "patchify_proj.", "adaln_single.", "caption_projection.", *_numbered("transformer_blocks.", 28),
        "scale_shift_table", "proj_out.",
    ],
    "ModelMergeCosmos7B": _cosmos(28),
    "ModelMergeCosmos14B": _cosmos(36),
    "ModelMergeWAN2_1": [
        "patch_embedding.", "time_embedding.", "time_projection.", "text_embedding.", "img_emb.",
        *_numbered("blocks.", 40), "head.",
    ],
    "ModelMergeCosmosPredict2_2B": _cosmos_predict2(28),
    "ModelMergeCosmosPredict2_14B": _cosmos_predict2(36),
    "ModelMergeQwenImage": [
        "pos_embeds.", "img_in.", "txt_norm.", "txt_in.", "time_text_embed.",
        *_numbered("transformer_blocks.", 60), "proj_out.",
    ],
    "ModelMergeKrea2": [
        "first.", "tmlp.", "txtmlp.", "tproj.", *_numbered("txtfusion.layerwise_blocks.", 2),
        "txtfusion.projector.", *_numbered("txtfusion.refiner_blocks.", 2), *_numbered("blocks.", 28),
        "last.",
    ],
}  # fmt: skip


class _ModelMergeByBlock(ModelMergeBlocks):
    CATEGORY = "model/merging/model specific"


def _node(name: str, blocks: list[str]) -> type[_ModelMergeByBlock]:
    # One declaration for all: clients read it, nobody writes to it.
    knobs = dict.fromkeys(blocks, float_input(1.0, 0.0, 1.0))
    return type(name, (_ModelMergeByBlock,), {"knobs": knobs, "__module__": __name__})


NODE_CLASS_MAPPINGS = {name: _node(name, blocks) for name, blocks in BLOCKS.items()}
globals().update(NODE_CLASS_MAPPINGS)
