"""Nodes that let long latents be sampled in overlapping windows; see `comfy.context_windows`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

SCHEDULES = ["standard_static", "standard_uniform", "looped_uniform", "batched"]
FUSE_METHODS = ["pyramid", "relative", "flat", "overlap-linear"]

_STRIDE = "Up to which power of two windows skip frames; for the uniform schedules."
_LOOP = "Let the last frames share windows with the first; for looped schedules."
_SCHEDULE = "Which windows each step has."
_FUSE = "How much each frame of a window counts where windows overlap."
_NOISE = "Repeat the noise of the first window, shuffled, so that windows fit each other better."
_SPLIT = "Give several conditionings to the windows in turn, instead of all to each."


def _with_windows(model, *, context_schedule, fuse_method, **options):
    from comfy import context_windows

    handler = context_windows.IndexListContextHandler(
        context_windows.get_matching_context_schedule(context_schedule),
        context_windows.get_matching_fuse_method(fuse_method),
        **options,
    )
    model = model.clone()
    model.model_options["context_handler"] = handler
    context_windows.create_prepare_sampling_wrapper(model)
    if handler.freenoise:
        context_windows.create_sampler_sample_wrapper(model)
    return io.NodeOutput(model)


class ContextWindowsManualNode(io.ComfyNode):
    """Windows along any axis, in latent frames."""

    @classmethod
    def define_schema(cls):
        kept = "Places in each window that show these frames of the whole instead, with commas between."
        return io.Schema(
            node_id="ContextWindowsManual",
            display_name="Context Windows (Manual)",
            category="model/patch",
            description="Samples long latents in overlapping windows, whose predictions are blended.",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("context_length", default=16, min=1, tooltip="Latent frames in a window."),
                io.Int.Input("context_overlap", default=4, min=0, tooltip="Frames that two windows share."),
                io.Combo.Input(
                    "context_schedule", options=SCHEDULES, default="standard_static", tooltip=_SCHEDULE
                ),
                io.Int.Input("context_stride", default=1, min=1, tooltip=_STRIDE),
                io.Boolean.Input("closed_loop", default=False, tooltip=_LOOP),
                io.Combo.Input("fuse_method", options=FUSE_METHODS, default="pyramid", tooltip=_FUSE),
                io.Int.Input(
                    "dim", default=0, min=0, max=5, tooltip="The axis: 0 for batches, 2 for video."
                ),
                io.Boolean.Input("freenoise", default=False, tooltip=_NOISE),
                io.String.Input("cond_retain_index_list", default="", multiline=False, tooltip=kept),
                io.Boolean.Input("split_conds_to_windows", default=False, tooltip=_SPLIT),
                io.String.Input("latent_retain_index_list", default="", multiline=False, tooltip=kept),
                io.Boolean.Input(
                    "causal_window_fix", default=True,
                    tooltip="Show each window the frame before it, for models that look back.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, which samples in windows.")],
            is_experimental=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, model, **options):
        return _with_windows(model, **options)


def _video_inputs(length: int, overlap: int, step: int, schedule: str, overlap_step: int | None) -> list:
    return [
        io.Model.Input("model"),
        io.Int.Input(
            "context_length", default=length, min=1, max=16384, step=step, tooltip="Frames in a window."
        ),
        io.Int.Input(
            "context_overlap", default=overlap, min=0, step=overlap_step,
            tooltip="Frames that two windows share.",
        ),
        io.Combo.Input("context_schedule", options=SCHEDULES, default=schedule, tooltip=_SCHEDULE),
        io.Int.Input("context_stride", default=1, min=1, tooltip=_STRIDE, advanced=True),
        io.Boolean.Input("closed_loop", default=False, tooltip=_LOOP, advanced=True),
        io.Combo.Input("fuse_method", options=FUSE_METHODS, default="pyramid", tooltip=_FUSE),
        io.Boolean.Input("freenoise", default=True, tooltip=_NOISE, advanced=True),
        io.Boolean.Input(
            "retain_first_frame", default=False, tooltip="Let each window begin with the first frame."
        ),
        io.Boolean.Input("split_conds_to_windows", default=False, tooltip=_SPLIT, advanced=True),
    ]  # fmt: skip


def _in_latents(frames: int, per_latent: int) -> int:
    """Frames of a video in latent frames, of which the first stands for one frame."""
    return max((frames - 1) // per_latent + 1, 1)


class WanContextWindowsManualNode(io.ComfyNode):
    """Windows along the time of latents that have a frame for four frames."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanContextWindowsManual",
            display_name="Wan Context Windows",
            category="model/patch/wan",
            description="Samples long videos of Wan in overlapping windows, counted in frames of the video.",
            inputs=_video_inputs(81, 30, 4, "standard_uniform", None),
            outputs=[io.Model.Output(tooltip="The model, which samples in windows.")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model, context_length, context_overlap, retain_first_frame=False, **options):
        return _with_windows(
            model,
            context_length=_in_latents(context_length, 4),
            context_overlap=context_overlap // 4,
            dim=2,
            cond_retain_index_list="0" if retain_first_frame else "",
            **options,
        )


class LTXVContextWindowsNode(io.ComfyNode):
    """Windows along the time of latents that have a frame for eight frames."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVContextWindows",
            display_name="LTXV Context Windows",
            category="model/patch",
            description="Samples long videos of LTXV in overlapping windows, counted in frames of the video.",
            inputs=_video_inputs(145, 40, 8, "standard_uniform", 8),
            outputs=[io.Model.Output(tooltip="The model, which samples in windows.")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model, context_length, context_overlap, retain_first_frame=False, **options):
        kept = "0" if retain_first_frame else ""
        return _with_windows(
            model,
            context_length=_in_latents(context_length, 8),
            context_overlap=context_overlap // 8,
            dim=2,
            cond_retain_index_list=kept,
            latent_retain_index_list=kept,
            **options,
        )


class ContextWindowsExtension(ComfyExtension):
    async def get_node_list(self):
        return [ContextWindowsManualNode, WanContextWindowsManualNode, LTXVContextWindowsNode]


async def comfy_entrypoint():
    return ContextWindowsExtension()
