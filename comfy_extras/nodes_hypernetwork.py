"""Hypernetworks: small networks beside the attention of Stable Diffusion."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io


class HypernetworkLoader(io.ComfyNode):
    """See `comfy.hypernetwork`."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HypernetworkLoader",
            display_name="Load Hypernetwork",
            category="model/loaders",
            description="Changes the attention of a Stable Diffusion model by a hypernetwork.",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("hypernetwork_name", options=folder_paths.get_filename_list("hypernetworks")),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.01),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, hypernetwork_name, strength):
        path = folder_paths.get_full_path_or_raise("hypernetworks", hypernetwork_name)
        import comfy.hypernetwork
        import comfy.utils

        content = comfy.utils.load_torch_file(path, safe_load=True)
        patch = comfy.hypernetwork.from_state_dict(content, hypernetwork_name).with_strength(strength)
        model = model.clone()
        model.set_model_attn1_patch(patch)
        model.set_model_attn2_patch(patch)
        return io.NodeOutput(model)

    load_hypernetwork = execute


class HyperNetworkExtension(ComfyExtension):
    async def get_node_list(self):
        return [HypernetworkLoader]


async def comfy_entrypoint():
    return HyperNetworkExtension()
