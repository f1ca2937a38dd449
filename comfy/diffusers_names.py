"""Names of the weights of latent diffusion's UNet in diffusers' layout and in checkpoints."""

from __future__ import annotations


def _with_leaves(names: dict[str, str]) -> dict[str, str]:
    return {f"{old}.{leaf}": f"{new}.{leaf}" for old, new in names.items() for leaf in ("weight", "bias")}


UNET_MAP_RESNET = _with_leaves(
    {
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
        "in_layers.0": "norm1",
        "out_layers.0": "norm2",
    }
)
UNET_MAP_ATTENTIONS = set(_with_leaves({name: name for name in ("proj_in", "proj_out", "norm")}))
TRANSFORMER_BLOCKS = {
    *_with_leaves(
        {name: name for name in ("norm1", "norm2", "norm3", "attn1.to_out.0", "attn2.to_out.0", "ff.net.2")}
    ),
    *_with_leaves({"ff.net.0.proj": ""}),
    *(f"{attention}.to_{part}.weight" for attention in ("attn1", "attn2") for part in "qkv"),
}
# Pairs (checkpoint, diffusers): two names of diffusers may be one of the checkpoint.
UNET_MAP_BASIC = {
    (f"{old}.{leaf}", f"{new}.{leaf}")
    for old, new in (
        ("label_emb.0.0", "class_embedding.linear_1"),
        ("label_emb.0.2", "class_embedding.linear_2"),
        ("label_emb.0.0", "add_embedding.linear_1"),
        ("label_emb.0.2", "add_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
    )
    for leaf in ("weight", "bias")
}


def _resnet(old: str, new: str) -> dict[str, str]:
    return {f"{new}.{inside}": f"{old}.{key}" for key, inside in UNET_MAP_RESNET.items()}


def _transformer(old: str, new: str, depth: int) -> dict[str, str]:
    names = {f"{new}.{key}": f"{old}.{key}" for key in UNET_MAP_ATTENTIONS}
    for block in range(depth):
        place = f"transformer_blocks.{block}"
        names.update({f"{new}.{place}.{key}": f"{old}.{place}.{key}" for key in TRANSFORMER_BLOCKS})
    return names


def _per_block(config: dict, counts: list[int], name: str, more: int) -> list[int]:
    """Depths of the transformers, one per residual block; a list per level is spread over its blocks."""
    found = config.get(name, config["transformer_depth"])
    blocks = [count + more for count in counts]
    if len(found) == len(counts) and len(found) != sum(blocks):
        return [depth for depth, count in zip(found, blocks) for _ in range(count)]
    return list(found)


def unet_to_diffusers(unet_config: dict) -> dict[str, str]:
    """{name in diffusers: name in a checkpoint} for every weight that such a UNet can have; {} for others."""
    if "num_res_blocks" not in unet_config:
        return {}
    counts = list(unet_config["num_res_blocks"])
    down = _per_block(unet_config, counts, "transformer_depth", 0)
    up = _per_block(unet_config, counts, "transformer_depth_output", 1)
    names = {new: old for old, new in UNET_MAP_BASIC}
    block = 1
    for level, count in enumerate(counts):
        for index in range(count):
            place = f"down_blocks.{level}"
            names.update(_resnet(f"input_blocks.{block}.0", f"{place}.resnets.{index}"))
            depth = down.pop(0)
            if depth:
                names.update(_transformer(f"input_blocks.{block}.1", f"{place}.attentions.{index}", depth))
            block += 1
        old, new = f"input_blocks.{block}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
        names.update({f"{new}.{leaf}": f"{old}.{leaf}" for leaf in ("weight", "bias")})
        block += 1
    middle = unet_config.get("transformer_depth_middle") or 0
    names.update(_transformer("middle_block.1", "mid_block.attentions.0", middle))
    for index in range(2):
        names.update(_resnet(f"middle_block.{2 * index}", f"mid_block.resnets.{index}"))
    names.update(_up(counts, up))
    return names


def _up(counts: list[int], depths: list[int]) -> dict[str, str]:
    """The output blocks: levels from the last, depths from the end."""
    names, block = {}, 0
    for level, count in enumerate(reversed(counts)):
        for index in range(count + 1):
            place = f"up_blocks.{level}"
            names.update(_resnet(f"output_blocks.{block}.0", f"{place}.resnets.{index}"))
            depth = depths.pop()
            if depth:
                names.update(_transformer(f"output_blocks.{block}.1", f"{place}.attentions.{index}", depth))
            if index == count:
                old = f"output_blocks.{block}.{2 if depth else 1}.conv"
                names.update(
                    {f"{place}.upsamplers.0.conv.{leaf}": f"{old}.{leaf}" for leaf in ("weight", "bias")}
                )
            block += 1
    return names
