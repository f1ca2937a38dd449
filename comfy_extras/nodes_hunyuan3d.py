"""Nodes of Hunyuan3D, and surfaces of volumes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, Types, io

ALGORITHMS = {"surface net": "surface_net", "basic": "cubes"}
VIEWS = ("front", "left", "back", "right")


class EmptyLatentHunyuan3Dv2(io.ComfyNode):
    """Where Hunyuan3D begins."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyLatentHunyuan3Dv2",
            category="model/latent/hunyuan 3d",
            description="An empty latent for Hunyuan3D 2.",
            inputs=[
                io.Int.Input("resolution", default=3072, min=1, max=8192, tooltip="Number of tokens."),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, resolution, batch_size):
        import torch

        import comfy.model_management

        device = comfy.model_management.intermediate_device()
        samples = torch.zeros(batch_size, 64, resolution, device=device)
        return io.NodeOutput({"samples": samples, "type": "hunyuan3dv2"})


def _sides():
    return [io.Conditioning.Output(display_name=side) for side in ("positive", "negative")]


def _conditioned(embeds):
    import torch

    return io.NodeOutput([[embeds, {}]], [[torch.zeros_like(embeds), {}]])


class Hunyuan3Dv2Conditioning(io.ComfyNode):
    """A picture to be made a body."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Hunyuan3Dv2Conditioning",
            category="model/conditioning/hunyuan 3d",
            description="Tells Hunyuan3D which picture to follow.",
            inputs=[io.ClipVisionOutput.Input("clip_vision_output")],
            outputs=_sides(),
        )

    @classmethod
    def execute(cls, clip_vision_output):
        return _conditioned(clip_vision_output.last_hidden_state)


def _view_embedding(number, width):
    """(width,): sines and cosines of the number of a view, at falling frequencies (Vaswani et al., 2017)."""
    import torch

    half = torch.arange(width // 2, dtype=torch.float64) / (width / 2)
    angles = number / 10000**half
    return torch.cat([angles.sin(), angles.cos()]).float()


class Hunyuan3Dv2ConditioningMultiView(io.ComfyNode):
    """Pictures of several sides."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Hunyuan3Dv2ConditioningMultiView",
            category="model/conditioning/hunyuan 3d",
            description="Tells Hunyuan3D what a body looks like from several sides.",
            inputs=[io.ClipVisionOutput.Input(view, optional=True) for view in VIEWS],
            outputs=_sides(),
        )

    @classmethod
    def execute(cls, **views):
        import torch

        seen = [
            (number, views[view].last_hidden_state) for number, view in enumerate(VIEWS) if views.get(view)
        ]
        if not seen:
            raise ValueError(f"No view is linked. Link an encoded picture to one of: {', '.join(VIEWS)}.")
        marked = [state + _view_embedding(number, state.shape[-1]).to(state) for number, state in seen]
        return _conditioned(torch.cat(marked, dim=1))


class VAEDecodeHunyuan3D(io.ComfyNode):
    """A latent as a volume."""

    @classmethod
    def define_schema(cls):
        chunks = "How many points are decoded at once; fewer need less memory."
        sides = "Number of values along each side of the volume."
        return io.Schema(
            node_id="VAEDecodeHunyuan3D",
            category="model/latent/hunyuan 3d",
            description="Decodes a latent of Hunyuan3D to a volume.",
            inputs=[
                io.Latent.Input("samples"),
                io.Vae.Input("vae"),
                io.Int.Input("num_chunks", default=8000, min=1000, max=500000, advanced=True, tooltip=chunks),
                io.Int.Input("octree_resolution", default=256, min=16, max=512, advanced=True, tooltip=sides),
            ],
            outputs=[io.Voxel.Output()],
        )

    @classmethod
    def execute(cls, samples, vae, num_chunks, octree_resolution):
        options = {"num_chunks": num_chunks, "octree_resolution": octree_resolution}
        return io.NodeOutput(Types.VOXEL(vae.decode(samples["samples"], vae_options=options)))


def _surfaces(voxel, algorithm, threshold):
    from comfy_extras.geometry import meshes, voxels

    surface = getattr(voxels, ALGORITHMS[algorithm])
    found = [surface(volume.detach().cpu().float().numpy(), threshold) for volume in voxel.data]
    if not any(len(faces) for _, faces in found):
        raise ValueError(
            f"Nothing of the volume is above {threshold:g}: it goes from {float(voxel.data.min()):.3g} to "
            f"{float(voxel.data.max()):.3g}. Choose a lower threshold."
        )
    return io.NodeOutput(meshes.batch_of([meshes.Body(vertices, faces) for vertices, faces in found]))


def _threshold():
    tooltip = "The surface is where the volume has this value."
    return io.Float.Input("threshold", default=0.6, min=-1.0, max=1.0, step=0.01, tooltip=tooltip)


class VoxelToMeshBasic(io.ComfyNode):
    """Little cubes."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VoxelToMeshBasic",
            display_name="Voxel to Mesh (Basic) (DEPRECATED)",
            category="3d",
            description="The surface of a volume, of little squares. Voxel to Mesh does it too.",
            is_deprecated=True,
            inputs=[io.Voxel.Input("voxel"), _threshold()],
            outputs=[io.Mesh.Output()],
        )

    @classmethod
    def execute(cls, voxel, threshold):
        return _surfaces(voxel, "basic", threshold)


class VoxelToMesh(io.ComfyNode):
    """The surface of a volume."""

    @classmethod
    def define_schema(cls):
        how = "surface net is smooth; basic is made of little squares."
        return io.Schema(
            node_id="VoxelToMesh",
            display_name="Voxel to Mesh",
            category="3d",
            description="The surface of a volume as a mesh.",
            inputs=[
                io.Voxel.Input("voxel"),
                io.Combo.Input("algorithm", options=list(ALGORITHMS), tooltip=how),
                _threshold(),
            ],
            outputs=[io.Mesh.Output()],
        )

    @classmethod
    def execute(cls, voxel, algorithm, threshold):
        return _surfaces(voxel, algorithm, threshold)


class Hunyuan3dExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            EmptyLatentHunyuan3Dv2, Hunyuan3Dv2Conditioning, Hunyuan3Dv2ConditioningMultiView,
            VAEDecodeHunyuan3D, VoxelToMeshBasic, VoxelToMesh,
        ]  # fmt: skip


def comfy_entrypoint():
    return Hunyuan3dExtension()
