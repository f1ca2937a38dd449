"""Networks compiled by PyTorch: slower at the first step, faster at the next ones."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


def _not_on_options(guard_entries) -> list[bool]:
    """Compiled code is not made anew when what packs hang onto the options changes, as at each step."""
    return ["transformer_options" not in entry.name for entry in guard_entries]


class TorchCompileModel(io.ComfyNode):
    """See `comfy_api.torch_helpers`."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TorchCompileModel",
            category="experimental",
            description="Compiles the network when it is first run. inductor needs a C++ compiler.",
            is_experimental=True,
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("backend", options=["inductor", "cudagraphs"], advanced=True),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, backend):
        from comfy_api.torch_helpers import set_torch_compile_wrapper

        model = model.clone()
        set_torch_compile_wrapper(model, backend=backend, options={"guard_filter_fn": _not_on_options})
        return io.NodeOutput(model)

    patch = execute


class TorchCompileExtension(ComfyExtension):
    async def get_node_list(self):
        return [TorchCompileModel]


async def comfy_entrypoint():
    return TorchCompileExtension()
