"""Gaussian splats: files, cameras, pictures, and surfaces."""

from __future__ import annotations

from io import BytesIO

from comfy_api.latest import ComfyExtension, Types, io, ui

CATEGORY = "3d/splat"


def _number(name, default, low, high, step, tooltip=None, **more):
    return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip, **more)


class SplatToFile3D(io.ComfyNode):
    """Splats as a file in memory."""

    @classmethod
    def define_schema(cls):
        how = "ply keeps all colours; ksplat and spz only those from the front, spz the smallest."
        return io.Schema(
            node_id="SplatToFile3D",
            display_name="Create 3D File (from Splat)",
            category=CATEGORY,
            description="Makes a file of splats, the first ones of a batch.",
            search_aliases=["gaussian to ply", "splat to file", "export gaussian"],
            inputs=[
                io.Splat.Input("splat"),
                io.Combo.Input("format", options=["ply", "ksplat", "spz"], tooltip=how),
            ],
            outputs=[io.File3DSplatAny.Output(display_name="model_3d")],
        )

    @classmethod
    def execute(cls, splat, format="ply"):
        from comfy_extras.geometry import splat_files, splats

        cloud = splats.clouds_of(splat)[0]
        if not len(cloud):
            raise ValueError("There are no splats to save. Link some to Create 3D File.")
        return io.NodeOutput(Types.File3D(BytesIO(splat_files.WRITERS[format](cloud)), file_format=format))


class File3DToSplat(io.ComfyNode):
    """Splats of a file."""

    @classmethod
    def define_schema(cls):
        kinds = [
            io.File3DAny, io.File3DSplatAny, io.File3DPLY, io.File3DSPLAT, io.File3DKSPLAT, io.File3DSPZ,
        ]  # fmt: skip
        return io.Schema(
            node_id="File3DToSplat",
            display_name="Get Splat",
            category=CATEGORY,
            description="Reads the splats of a file.",
            search_aliases=["load splat", "ply to splat", "import splat", "file to splat"],
            inputs=[io.MultiType.Input("model_3d", kinds)],
            outputs=[io.Splat.Output(display_name="splat")],
        )

    @classmethod
    def execute(cls, model_3d):
        from comfy_extras.geometry import splat_files, splats

        return io.NodeOutput(splats.batch_of([splat_files.read(model_3d.get_bytes(), model_3d.format)]))


class RenderSplat(io.ComfyNode):
    """A picture of splats."""

    @classmethod
    def define_schema(cls):
        side = {"default": 1024, "min": 64, "max": 2048, "step": 8}
        turn = "More than one: a full turn around; negative, the other way."
        sharp = "Larger: a pixel takes the colour of the splats that cover it most."
        return io.Schema(
            node_id="RenderSplat",
            display_name="Render Splat",
            category=CATEGORY,
            description="A picture of splats, or several from all around.",
            search_aliases=["splat to image", "render splat", "gaussian turntable"],
            inputs=[
                io.Splat.Input("splat"),
                io.Int.Input("width", **side),
                io.Int.Input("height", **side),
                io.Int.Input("frames", default=1, min=-240, max=240, tooltip=turn),
                _number("splat_scale", 1.0, 0.1, 5.0, 0.05, "How large splats are drawn.", advanced=True),
                _number("sharpen", 2.0, 1.0, 8.0, 0.5, sharp),
                _number("headlight_shading", 0.0, 0.0, 3.0, 0.05, "Darkens what looks aside.", advanced=True),
                _number(
                    "opacity_threshold", 0.0, 0.0, 1.0, 0.01, "Fainter ones are left out.", advanced=True
                ),
                io.Combo.Input("render_style", options=["color", "clay", "depth", "normal"]),
                io.Color.Input("background", default="#000000"),
                io.Image.Input("bg_image", optional=True, tooltip="A picture behind them."),
                io.Load3DCamera.Input("camera_info", optional=True),
            ],
            outputs=[io.Image.Output(display_name="image"), io.Mask.Output(display_name="mask")],
        )

    @classmethod
    def execute(
        cls, splat, width, height, frames, splat_scale, sharpen, headlight_shading, opacity_threshold,
        render_style, background, bg_image=None, camera_info=None,
    ):  # fmt: skip
        import numpy
        import torch

        from comfy_extras.geometry import cameras, splat_rendering, splats

        how = {
            "style": render_style,
            "scale": splat_scale,
            "sharpen": sharpen,
            "headlight": headlight_shading,
        }
        behind = _backgrounds(bg_image, background, width, height)
        pictures, masks = [], []
        for cloud in splats.clouds_of(splat):
            cloud = cloud.kept(cloud.opacities >= opacity_threshold)
            if not len(cloud):
                raise ValueError("There are no splats to render. Link some, or lower the opacity_threshold.")
            info = camera_info or splat_rendering.framing(cloud, width, height)
            for number in range(max(abs(frames), 1)):
                view = cameras.orbited(info, 360.0 * number / frames) if abs(frames) > 1 else info
                back = behind[len(pictures) % len(behind)]
                picture, mask = splat_rendering.rendered(cloud, view, width, height, background=back, **how)
                pictures.append(picture)
                masks.append(mask)
        return io.NodeOutput(*(torch.from_numpy(numpy.stack(all_of)) for all_of in (pictures, masks)))


def _backgrounds(images, color, width, height):
    """Pictures (H, W, 3), or the colour alone."""
    import comfy.utils
    from comfy_extras.nodes_mesh_postprocess import rgb_of

    if images is None:
        return [rgb_of(color)]
    sized = comfy.utils.common_upscale(images[..., :3].movedim(-1, 1), width, height, "bicubic", "disabled")
    return list(sized.movedim(1, -1).clamp(0, 1).cpu().float().numpy())


def _camera_modes():
    places = [_number(f"position_{axis}", 4.0, -1000.0, 1000.0, 0.01) for axis in "xyz"]
    turns = [_number(f"quat_{axis}", float(axis == "w"), -1.0, 1.0, 0.001) for axis in "xyzw"]
    orbit = [
        _number("yaw", 35.0, -360.0, 360.0, 1.0, "Degrees about the vertical axis."),
        _number("pitch", 30.0, -89.0, 89.0, 1.0, "Degrees above the horizon."),
        _number("distance", 4.0, 0.01, 1000.0, 0.01),
    ]
    options = {"orbit": orbit, "look_at": places, "quaternion": [*places, *turns]}
    return [io.DynamicCombo.Option(name, inputs) for name, inputs in options.items()]


class CreateCameraInfo(io.ComfyNode):
    """A camera."""

    @classmethod
    def define_schema(cls):
        target = [_number(f"target_{axis}", 0.0, -1000.0, 1000.0, 0.01, advanced=True) for axis in "xyz"]
        return io.Schema(
            node_id="CreateCameraInfo",
            display_name="Create Camera Info",
            category="3d",
            description="A camera: around a target, at a place, or with a rotation.",
            search_aliases=["camera position", "make camera info", "orbit camera", "look at camera"],
            inputs=[
                io.DynamicCombo.Input("mode", options=_camera_modes()),
                *target,
                _number("roll", 0.0, -180.0, 180.0, 1.0, "Degrees about the line of sight."),
                _number("fov", 35.0, 1.0, 120.0, 1.0, "Degrees from bottom to top."),
                _number("zoom", 1.0, 0.01, 100.0, 0.01),
                io.Combo.Input("camera_type", options=["perspective", "orthographic"]),
            ],
            outputs=[io.Load3DCamera.Output(display_name="camera_info")],
        )

    @classmethod
    def execute(cls, mode, target_x, target_y, target_z, roll, fov, zoom=1.0, camera_type="perspective"):
        from comfy_extras.geometry import cameras

        lens = {"fov": fov, "zoom": zoom, "camera_type": camera_type}
        target = [target_x, target_y, target_z]
        position = [mode.get(f"position_{axis}") for axis in "xyz"]
        if mode["mode"] == "quaternion":
            turn = [mode[f"quat_{axis}"] for axis in "xyzw"]
            return io.NodeOutput(cameras.turned(turn, position, **lens))
        if mode["mode"] == "orbit":
            position = cameras.around(target, mode["yaw"], mode["pitch"], mode["distance"])
        return io.NodeOutput(cameras.look_at(position, target, roll=roll, **lens))


class TransformSplat(io.ComfyNode):
    """Moves, turns and scales splats."""

    @classmethod
    def define_schema(cls):
        inputs = [_number(f"translate_{axis}", 0.0, -100.0, 100.0, 0.01) for axis in "xyz"]
        inputs += [_number(f"rotate_{axis}", 0.0, -360.0, 360.0, 1.0) for axis in "xyz"]
        inputs += [_number(f"scale_{axis}", 1.0, 0.01, 100.0, 0.01) for axis in "xyz"]
        return io.Schema(
            node_id="TransformSplat",
            display_name="Transform Splat",
            category=CATEGORY,
            description="Turns splats about x, y and z in turn, scales them along the axes, and moves them.",
            search_aliases=["move splat", "rotate splat", "scale splat", "gaussian transform"],
            inputs=[io.Splat.Input("splat"), *inputs],
            outputs=[io.Splat.Output(display_name="splat")],
        )

    @classmethod
    def execute(cls, splat, **values):
        from comfy_extras.geometry import splats

        how = [[values[f"{name}_{axis}"] for axis in "xyz"] for name in ("translate", "rotate", "scale")]
        return io.NodeOutput(
            splats.batch_of([splats.transformed(one, *how) for one in splats.clouds_of(splat)])
        )


class GetSplatCount(io.ComfyNode):
    """How many there are."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GetSplatCount",
            display_name="Get Splat Count",
            category=CATEGORY,
            description="The number of splats, of a whole batch together.",
            search_aliases=["splat count", "gaussian count", "number of splats", "splat info"],
            inputs=[io.Splat.Input("splat")],
            outputs=[io.Splat.Output(display_name="splat"), io.Int.Output(display_name="count")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, splat):
        from comfy_extras.geometry import splats

        count = sum(splats.count_of(splat, index) for index in range(splat.positions.shape[0]))
        return io.NodeOutput(splat, count, ui=ui.PreviewText(f"{count:,}"))


class MergeSplat(io.ComfyNode):
    """Splats of several inputs together."""

    @classmethod
    def define_schema(cls):
        many = io.Autogrow.TemplatePrefix(io.Splat.Input("splat"), prefix="splat", min=2, max=32)
        return io.Schema(
            node_id="MergeSplat",
            display_name="Merge Splats",
            category=CATEGORY,
            description="Puts splats together, item by item.",
            search_aliases=["union splat", "densify gaussian", "combine splat", "merge gaussian"],
            inputs=[io.Autogrow.Input("splats", many)],
            outputs=[io.Splat.Output(display_name="splat")],
        )

    @classmethod
    def execute(cls, splats):
        from comfy_extras.geometry import splats as clouds

        batches = [clouds.clouds_of(splat) for splat in splats.values() if splat is not None]
        sizes = sorted({len(items) for items in batches})
        if len(sizes) != 1:
            raise ValueError(
                f"The batches have {sizes} items, which cannot be put together. Link equal ones."
            )
        return io.NodeOutput(clouds.batch_of([clouds.joined(items) for items in zip(*batches, strict=True)]))


class SplatToMesh(io.ComfyNode):
    """A surface around splats."""

    @classmethod
    def define_schema(cls):
        level = "How dense splats are at the surface; 1 is as dense as usual in their middles."
        small = "Parts of fewer vertices are dropped."
        return io.Schema(
            node_id="SplatToMesh",
            display_name="Extract Mesh from Splat",
            category=CATEGORY,
            description="Makes a coloured mesh where splats are dense.",
            search_aliases=["splat to mesh", "gaussian surface nets", "splat surface", "mesh splat"],
            inputs=[
                io.Splat.Input("splat"),
                io.Int.Input("resolution", default=384, min=64, max=768, step=16, tooltip="Cells on a side."),
                io.Int.Input("kernel", default=5, min=1, max=8, tooltip="How far a splat reaches, in cells."),
                io.Int.Input("smooth", default=0, min=0, max=60, advanced=True),
                _number("level", 0.4, 0.0, 2.0, 0.01, level),
                io.Int.Input(
                    "min_component", default=500, min=0, max=100000, step=50, advanced=True, tooltip=small
                ),
                _number("min_opacity", 0.02, 0.0, 1.0, 0.01, "Fainter ones are left out.", advanced=True),
                _number("color_sharpen", 2.0, 1.0, 8.0, 0.5, "Larger: the nearest splats give the colour."),
            ],
            outputs=[io.Mesh.Output(display_name="mesh")],
        )

    @classmethod
    def execute(
        cls, splat, resolution, kernel, smooth, level, min_component, min_opacity, color_sharpen
    ):  # fmt: skip
        from comfy_extras.geometry import meshes, splat_meshing, splats

        how = {"resolution": resolution, "kernel": kernel, "smooth": smooth, "level": level,
               "min_component": min_component, "min_opacity": min_opacity,
               "sharpen": color_sharpen}  # fmt: skip
        bodies = [splat_meshing.meshed(cloud, **how) for cloud in splats.clouds_of(splat)]
        return io.NodeOutput(meshes.batch_of(bodies))


class GaussianExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            SplatToFile3D, File3DToSplat, RenderSplat, CreateCameraInfo, TransformSplat, GetSplatCount,
            MergeSplat, SplatToMesh,
        ]  # fmt: skip


def comfy_entrypoint():
    return GaussianExtension()
