"""Nodes that unwrap meshes, and make, bake and apply textures."""

from __future__ import annotations

import copy

from comfy_api.latest import io

CATEGORY = "3d/texturing"


def _side(default=1024, least=64, most=4096, step=64, **more):
    tooltip = "Pixels of each side of the texture."
    return io.Int.Input(
        "resolution", default=default, min=least, max=most, step=step, tooltip=tooltip, **more
    )


def _images(arrays):
    """(B, H, W, 3) of arrays (H, W, 1 or 3)."""
    import numpy
    import torch

    wide = [numpy.broadcast_to(array, (*array.shape[:2], 3)) for array in arrays]
    return torch.from_numpy(numpy.stack(wide).astype(numpy.float32))


class UnwrapMesh(io.ComfyNode):
    """Texture coordinates."""

    @classmethod
    def define_schema(cls):
        weld = "Vertices nearer than this are made one before; 0 for none."
        return io.Schema(
            node_id="UnwrapMesh",
            display_name="Unwrap Mesh UVs",
            category=CATEGORY,
            description="Cuts a mesh along seams and lays it flat, so that it can have a texture.",
            inputs=[
                io.Mesh.Input("mesh"),
                io.Combo.Input(
                    "segmenter", options=["pec", "adaptive"], default="pec", tooltip="xatlas does both."
                ),
                io.Int.Input(
                    "resolution",
                    default=1024,
                    min=0,
                    max=8192,
                    step=256,
                    tooltip="Of the texture; 0 for any.",
                ),
                io.Int.Input("padding", default=1, min=0, max=16, tooltip="Pixels between the pieces."),
                io.Float.Input("weld_distance", default=0.0, min=0.0, max=1.0, step=0.0001, tooltip=weld),
            ],
            outputs=[io.Mesh.Output(display_name="mesh")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, mesh, segmenter, resolution, padding, weld_distance):
        from comfy_extras.geometry import meshes, texturing, topology

        def change(body):
            body = topology.welded(body, absolute=weld_distance) if weld_distance else body
            return texturing.unwrapped(body, resolution, padding)

        return io.NodeOutput(meshes.changed(mesh, change))


class RenderUVAtlas(io.ComfyNode):
    """How a mesh lies on its texture."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RenderUVAtlas",
            display_name="Render UV Atlas",
            category=CATEGORY,
            description="Draws the triangles of a mesh as they lie on its texture.",
            inputs=[io.Mesh.Input("mesh"), _side()],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, mesh, resolution):
        from comfy_extras.geometry import meshes, texturing

        bodies = [texturing.require_uvs(body, "Render UV Atlas") for body in meshes.bodies_of(mesh)]
        return io.NodeOutput(_images([texturing.atlas_picture(body, resolution) for body in bodies]))


def _voxels_of(voxel, number):
    """(coords (V, 3), values (V, C), resolution) of one item; coords of 4 columns begin with its number."""
    coords = voxel.data.detach().cpu().float().numpy()
    values = voxel.voxel_colors
    if values is None or coords.ndim != 2:
        raise ValueError("The voxels have no colours. Link those that a texture decoder gives.")
    values = values.detach().cpu().float().numpy()
    if coords.shape[1] == 4:
        mine = coords[:, 0] == number
        coords, values = coords[mine, 1:], values[mine]
    return coords, values, float(voxel.resolution)


class PaintMesh(io.ComfyNode):
    """Colours of voxels on vertices."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PaintMesh",
            display_name="Paint Mesh",
            category="3d/mesh",
            description="Gives each vertex the colour of the nearest voxel.",
            inputs=[io.Mesh.Input("mesh"), io.Voxel.Input("voxel_colors")],
            outputs=[io.Mesh.Output(display_name="mesh")],
        )

    @classmethod
    def execute(cls, mesh, voxel_colors):
        from comfy_extras.geometry import meshes, texturing

        bodies = [
            texturing.painted(body, *_voxels_of(voxel_colors, number))
            for number, body in enumerate(meshes.bodies_of(mesh))
        ]
        return io.NodeOutput(meshes.batch_of(bodies))


class BakeTextureFromVoxel(io.ComfyNode):
    """Values of voxels on a texture."""

    @classmethod
    def define_schema(cls):
        reference = "Where the voxels were made for another mesh: that one."
        return io.Schema(
            node_id="BakeTextureFromVoxel",
            display_name="Bake Texture From Voxel",
            category=CATEGORY,
            description="Makes textures of colour, metal and roughness out of voxels.",
            inputs=[
                io.Mesh.Input("mesh"),
                io.Voxel.Input("voxel_colors"),
                io.Int.Input("texture_size", "resolution", default=2048, min=64, max=8192),
                io.Mesh.Input("reference_mesh", optional=True, tooltip=reference),
            ],
            outputs=[io.Image.Output(display_name=name) for name in ("base_color", "metallic", "roughness")],
        )

    @classmethod
    def execute(cls, mesh, voxel_colors, texture_size, reference_mesh=None):
        import numpy

        from comfy_extras.geometry import meshes, texturing

        references = meshes.bodies_of(reference_mesh) if reference_mesh is not None else [None]
        baked = []
        for number, body in enumerate(meshes.bodies_of(mesh)):
            texturing.require_uvs(body, "Bake Texture From Voxel")
            reference = references[min(number, len(references) - 1)]
            found = texturing.baked_voxels(body, *_voxels_of(voxel_colors, number), texture_size, reference)
            # Voxels of colours alone are neither metal nor smooth.
            missing = numpy.tile([0.0, 0.0, 0.0, 0.0, 1.0], (*found.shape[:2], 1))[..., found.shape[2] :]
            baked.append(numpy.clip(numpy.concatenate([found, missing], axis=2), 0, 1))
        return io.NodeOutput(*(_images([one[..., part] for one in baked]) for part in np_parts()))


def np_parts():
    """The channels of colour, metal and roughness among a voxel's values."""
    return slice(0, 3), slice(3, 4), slice(4, 5)


def _texture_outputs():
    names = ("base_color", "metallic", "roughness", "occlusion", "normal_map")
    return [io.Image.Output(display_name=name) for name in names]


class MeshTextureToImage(io.ComfyNode):
    """Textures as pictures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MeshTextureToImage",
            display_name="Mesh Texture to Image",
            category=CATEGORY,
            description="Gives the textures of a mesh as pictures.",
            inputs=[io.Mesh.Input("mesh")],
            outputs=_texture_outputs(),
        )

    @classmethod
    def execute(cls, mesh):
        import torch

        if mesh.texture is None:
            raise ValueError("The mesh has no texture. Put Apply Texture to Mesh before it.")
        base = mesh.texture.float().clamp(0, 1).cpu()
        surface = torch.zeros_like(base) if mesh.metallic_roughness is None else mesh.metallic_roughness
        surface = surface.float().clamp(0, 1).cpu()
        covered, rough, metal = (surface[..., one : one + 1].expand(-1, -1, -1, 3) for one in range(3))
        covered = covered if mesh.occlusion_in_mr else torch.ones_like(base)
        flat = torch.tensor([0.5, 0.5, 1.0]).expand_as(base)
        normals = flat if mesh.normal_map is None else mesh.normal_map.float().clamp(0, 1).cpu()
        return io.NodeOutput(base, metal, rough, covered, normals)


def _surface_texture(occlusion, roughness, metallic):
    """(B, H, W, 3) of gray pictures, at the largest of their sizes; what is not given is open, rough and no
    metal.
    """
    import torch

    given = [image for image in (occlusion, roughness, metallic) if image is not None]
    height, width = (max(image.shape[side] for image in given) for side in (1, 2))
    channels = []
    for image, default in ((occlusion, 1.0), (roughness, 1.0), (metallic, 0.0)):
        if image is None:
            channels.append(torch.full((given[0].shape[0], 1, height, width), default))
            continue
        gray = image[..., :1].float().clamp(0, 1).cpu().movedim(-1, 1)
        channels.append(torch.nn.functional.interpolate(gray, (height, width), mode="bilinear"))
    return torch.cat(channels, dim=1).movedim(1, -1)


class ApplyTextureToMesh(io.ComfyNode):
    """Pictures as textures."""

    @classmethod
    def define_schema(cls):
        others = ("metallic", "roughness", "occlusion", "normal_map")
        return io.Schema(
            node_id="ApplyTextureToMesh",
            display_name="Apply Texture to Mesh",
            category=CATEGORY,
            description="Lays pictures on a mesh that is unwrapped.",
            inputs=[
                io.Mesh.Input("mesh"),
                io.Image.Input("base_color"),
                *(io.Image.Input(name, optional=True) for name in others),
            ],
            outputs=[io.Mesh.Output(display_name="mesh")],
        )

    @classmethod
    def execute(cls, mesh, base_color, metallic=None, roughness=None, occlusion=None, normal_map=None):
        from dataclasses import replace

        from comfy_extras.geometry import baking, meshes, texturing

        def change(body):
            uvs = texturing.within_unit(texturing.require_uvs(body, "Apply Texture to Mesh").uvs)
            body = replace(body, uvs=uvs)
            if normal_map is None:
                return body
            body = baking.with_normals(body)
            return replace(body, tangents=texturing.tangents_of(body))

        textured = copy.copy(meshes.changed(mesh, change))
        textured.texture = base_color[..., :3].float().clamp(0, 1).cpu()
        if normal_map is not None:
            textured.normal_map = normal_map[..., :3].float().clamp(0, 1).cpu()
        if not (metallic is None and roughness is None and occlusion is None):
            textured.metallic_roughness = _surface_texture(occlusion, roughness, metallic)
            textured.occlusion_in_mr = mesh.occlusion_in_mr or occlusion is not None
        return io.NodeOutput(textured)


def _pairs(low_poly, high_poly, node):
    """The meshes of two batches, in pairs; one detailed mesh may serve all."""
    from comfy_extras.geometry import meshes, texturing

    low = [texturing.require_uvs(body, node) for body in meshes.bodies_of(low_poly)]
    high = meshes.bodies_of(high_poly)
    return [(body, high[min(number, len(high) - 1)]) for number, body in enumerate(low)]


def _two_meshes():
    return [
        io.Mesh.Input("low_poly", tooltip="The simple mesh, unwrapped."),
        io.Mesh.Input("high_poly", tooltip="The detailed one, at the same place."),
    ]


class BakeNormalMapFromMesh(io.ComfyNode):
    """Detail as a texture."""

    @classmethod
    def define_schema(cls):
        cage = "How far apart the meshes may be, as a share of the size."
        return io.Schema(
            node_id="BakeNormalMapFromMesh",
            display_name="Bake Normal Map from Mesh",
            category=CATEGORY,
            description="Makes light fall on a simple mesh as on a detailed one.",
            inputs=[
                *_two_meshes(),
                _side(most=8192, display_name="resolution"),
                io.Float.Input("cage_distance", default=0.05, min=0.001, max=0.5, step=0.001, tooltip=cage),
                io.Boolean.Input(
                    "ignore_backfaces", default=True, tooltip="Only faces that look the same way count."
                ),
            ],
            outputs=[io.Image.Output(display_name="normal_map")],
        )

    @classmethod
    def execute(cls, low_poly, high_poly, resolution, cage_distance, ignore_backfaces):
        from comfy_extras.geometry import baking

        pairs = _pairs(low_poly, high_poly, "Bake Normal Map from Mesh")
        how = (resolution, cage_distance, ignore_backfaces)
        return io.NodeOutput(_images([baking.normal_map(low, high, *how) for low, high in pairs]))


class BakeAmbientOcclusion(io.ComfyNode):
    """Shadows of corners as a texture."""

    @classmethod
    def define_schema(cls):
        number = io.Float.Input
        far = "What is farther away takes no light, as a share of the size."
        near = "What is nearer is the surface itself, as a share of the size."
        return io.Schema(
            node_id="BakeAmbientOcclusion",
            display_name="Bake Ambient Occlusion",
            category=CATEGORY,
            description="How much light from all around reaches each place of a mesh.",
            inputs=[
                *_two_meshes(),
                _side(most=8192),
                io.Int.Input("samples", default=64, min=4, max=1024, step=4, tooltip="Directions."),
                number("max_distance", default=0.5, min=0.01, max=2.0, step=0.01, tooltip=far),
                number("strength", default=1.0, min=0.0, max=2.0, step=0.05),
                number("bias", default=0.01, min=0.0001, max=0.2, step=0.0005, tooltip=near),
            ],
            outputs=[io.Image.Output(display_name="occlusion")],
        )

    @classmethod
    def execute(cls, low_poly, high_poly, resolution, samples, max_distance, strength, bias):
        from comfy_extras.geometry import baking

        how = {"samples": samples, "max_distance": max_distance, "strength": strength, "bias": bias}
        pairs = _pairs(low_poly, high_poly, "Bake Ambient Occlusion")
        return io.NodeOutput(_images([baking.occlusion(low, high, resolution, **how) for low, high in pairs]))
