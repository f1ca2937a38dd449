"""Videos: from files and pictures, in parts, and saved."""

from __future__ import annotations

import json
import os
from fractions import Fraction

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import ComfyExtension, InputImpl, Types, io, ui

WEBM_ENCODERS = {"vp9": "libvpx-vp9", "av1": "libsvtav1"}
# (default, most) of the number that stands for quality; less is better.
QUALITIES = {"h264": (23.0, 51.0), "av1": (30.0, 63.0)}
COLOR_SPACES = ["auto", "sRGB", "HDR", "HDR PQ"]


def _workflow(hidden):
    """What a file carries of its prompt, by key; nothing if that is switched off."""
    if args.disable_metadata:
        return {}
    prompt = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return {**(hidden.extra_pnginfo or {}), **prompt}


def _place(prefix, width, height, suffix):
    """(path, what is told of it) of a file to be saved in the output folder."""
    folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(
        prefix, folder_paths.get_output_directory(), width, height
    )
    name = f"{stem}_{number:05}_.{suffix}"
    return os.path.join(folder, name), ui.SavedResult(name, subfolder, io.FolderType.output)


def _bytes_of(images):
    """Pictures as (B, H, W, C) of 0..255, cut to that."""
    import torch

    return (images * 255).clamp(0, 255).to(device="cpu", dtype=torch.uint8).numpy()


def write_webm(path, images, *, codec, fps, crf, metadata):
    """Encode pictures (B, H, W, 3 or 4) as a WEBM file, complete or not there. VP9 keeps transparency."""
    import av

    has_alpha = images.shape[-1] == 4 and codec == "vp9"
    partial = f"{path}.partial"
    try:
        with av.open(partial, mode="w", format="webm") as container:
            container.metadata.update({key: json.dumps(value) for key, value in metadata.items()})
            stream = container.add_stream(WEBM_ENCODERS[codec], rate=Fraction(round(fps * 1000), 1000))
            stream.height, stream.width = images.shape[1:3]
            stream.pix_fmt = "yuva420p" if has_alpha else "yuv420p10le" if codec == "av1" else "yuv420p"
            stream.bit_rate = 0  # the encoder then goes by quality alone
            stream.options = {"crf": str(int(crf)), **({"preset": "6"} if codec == "av1" else {})}
            for image in images:
                pixels = _bytes_of(image[..., : 4 if has_alpha else 3])
                frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if has_alpha else "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


class SaveWEBM(io.ComfyNode):
    """Pictures as the frames of a WEBM file."""

    @classmethod
    def define_schema(cls):
        quality = "From 0 to 63; less is better, and a larger file."
        return io.Schema(
            node_id="SaveWEBM",
            display_name="Save WEBM",
            category="video",
            description="Saves pictures as a WEBM video without sound.",
            search_aliases=["export webm"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images"),
                io.String.Input("filename_prefix", default="ComfyUI"),
                io.Combo.Input("codec", options=list(WEBM_ENCODERS)),
                io.Float.Input("fps", default=24.0, min=0.01, max=1000.0, step=0.01),
                io.Float.Input("crf", default=32.0, min=0, max=63.0, step=1, tooltip=quality),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images, filename_prefix, codec, fps, crf):
        if not images.numel():
            raise ValueError("There are no pictures to save. Link some to Save WEBM.")
        height, width = images.shape[1:3]
        path, result = _place(filename_prefix, width, height, "webm")
        write_webm(path, images, codec=codec, fps=fps, crf=crf, metadata=_workflow(cls.hidden))
        return io.NodeOutput(images, ui=ui.PreviewVideo([result]))


def _encoding_input(codec):
    default, most = QUALITIES[codec]
    crf = io.Float.Input(
        "crf", default=default, min=0.0, max=most, step=1.0, tooltip="Less is better, and a larger file."
    )
    space = io.Combo.Input(
        "color_space", COLOR_SPACES, "color space", default="auto",
        tooltip="How the values are to be read; they are not changed. auto: as the video says, or sRGB.",
    )  # fmt: skip
    options = [io.DynamicCombo.Option("auto", []), io.DynamicCombo.Option("re-encode", [crf, space])]
    tooltip = "auto copies what is encoded with this codec already."
    return io.DynamicCombo.Input("encoding", options, "encoding mode", optional=True, tooltip=tooltip)


def _codec_input(codecs, **more):
    options = [io.DynamicCombo.Option("auto", [])]
    options += [io.DynamicCombo.Option(codec, [_encoding_input(codec)]) for codec in codecs]
    return io.DynamicCombo.Input("codec", options, tooltip="auto keeps what the file can hold.", **more)


def _format_input():
    formats = {"auto": ["h264", "av1"], "mp4": ["h264", "av1"], "mkv": ["h264", "av1"], "webm": ["av1"]}
    options = [io.DynamicCombo.Option(name, [_codec_input(codecs)]) for name, codecs in formats.items()]
    return io.DynamicCombo.Input("format", options, tooltip="auto is mp4.")


class SaveVideo(io.ComfyNode):
    """A video as a file."""

    @classmethod
    def define_schema(cls):
        prefix = "The start of the file name, with folders if wanted."
        return io.Schema(
            node_id="SaveVideo",
            display_name="Save Video",
            category="video",
            description="Saves a video in the output folder; what needs no change is copied as it is.",
            search_aliases=["export video"],
            essentials_category="Basics",
            is_output_node=True,
            inputs=[
                io.Video.Input("video"),
                io.String.Input("filename_prefix", default="video/ComfyUI", tooltip=prefix),
                _format_input(),
                # Where workflows had it before formats had codecs of their own.
                _codec_input(["h264", "av1"], optional=True, extra_dict={"hidden": True}),
            ],
            outputs=[io.Video.Output(display_name="video")],
        )

    @classmethod
    def INPUT_TYPES(cls):
        """As declared, but prompts may lack the codec of the format: it stood beside the format once."""
        declared = super().INPUT_TYPES()
        for option in declared["required"]["format"][1]["options"]:
            inputs = option["inputs"]
            inputs["optional"] = {**inputs.pop("required"), **inputs.get("optional", {})}
        return declared

    @classmethod
    def execute(cls, video, filename_prefix, format, codec=None):
        container = format["format"] if isinstance(format, dict) else format
        chosen = (format.get("codec") if isinstance(format, dict) else None) or codec or {}
        chosen = chosen if isinstance(chosen, dict) else {"codec": chosen}
        encoding = chosen.get("encoding") or {}
        space = encoding.get("color_space")
        suffix = Types.VideoContainer.get_extension(container)
        path, result = _place(filename_prefix, *video.get_dimensions(), suffix)
        video.save_to(
            path,
            format=Types.VideoContainer(container),
            codec=Types.VideoCodec(chosen.get("codec", "auto")),
            metadata=_workflow(cls.hidden) or None,
            crf=encoding.get("crf"),
            color_space=None if space == "auto" else space,
        )
        return io.NodeOutput(video, ui=ui.PreviewVideo([result]))


class CreateVideo(io.ComfyNode):
    """Pictures and sound as a video."""

    @classmethod
    def define_schema(cls):
        bits = io.Int.Input(
            "bit_depth", default=8, min=8, max=10, step=2, display_mode=io.NumberDisplay.number,
            optional=True, tooltip="Bits of a colour when the video is saved.",
        )  # fmt: skip
        return io.Schema(
            node_id="CreateVideo",
            display_name="Create Video",
            category="video",
            description="Makes a video of pictures, with sound if it is linked.",
            search_aliases=["images to video"],
            essentials_category="Video Tools",
            inputs=[
                io.Image.Input("images", tooltip="The frames."),
                io.Float.Input("fps", default=30.0, min=1.0, max=120.0, step=1.0, tooltip="Frames a second."),
                io.Audio.Input("audio", optional=True),
                bits,
            ],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(cls, images, fps, audio=None, bit_depth=8):
        parts = Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(fps))
        return io.NodeOutput(InputImpl.VideoFromComponents(parts, bit_depth=bit_depth))


class GetVideoComponents(io.ComfyNode):
    """A video as pictures and sound."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GetVideoComponents",
            display_name="Get Video Components",
            category="video",
            description="Takes a video apart.",
            search_aliases=["extract frames", "split video", "video to images", "demux"],
            inputs=[io.Video.Input("video")],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Audio.Output(display_name="audio", tooltip="Nothing if the video is silent."),
                io.Float.Output(display_name="fps"),
                io.Int.Output(display_name="bit_depth"),
                io.Combo.Output(display_name="color_space", options=COLOR_SPACES),
            ],
        )

    @classmethod
    def execute(cls, video):
        parts = video.get_components()
        return io.NodeOutput(
            parts.images, parts.audio, float(parts.frame_rate), video.get_bit_depth(), video.get_color_space()
        )


def _video_files():
    folder = folder_paths.get_input_directory()
    names = os.listdir(folder) if os.path.isdir(folder) else []
    files = [name for name in names if os.path.isfile(os.path.join(folder, name))]
    return sorted(folder_paths.filter_files_content_types(files, ["video"]))


class LoadVideo(io.ComfyNode):
    """A video of the input folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadVideo",
            display_name="Load Video",
            category="video",
            description="Opens a video; its frames are decoded when they are needed.",
            search_aliases=["import video", "open video", "video file"],
            essentials_category="Basics",
            inputs=[io.Combo.Input("file", options=_video_files(), upload=io.UploadType.video)],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, file):
        return os.stat(folder_paths.get_annotated_filepath(file)).st_mtime

    @classmethod
    def validate_inputs(cls, file):
        if folder_paths.exists_annotated_filepath(file):
            return True
        return f"Invalid video file: {file}. It is not there any more; upload it again or choose another."

    @classmethod
    def execute(cls, file):
        return io.NodeOutput(InputImpl.VideoFromFile(folder_paths.get_annotated_filepath(file)))


class VideoSlice(io.ComfyNode):
    """A part of a video."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Video Slice",
            display_name="Trim Video",
            category="video",
            description="The part of a video from a time on.",
            search_aliases=["trim video duration", "skip first frames", "frame load cap", "start time"],
            essentials_category="Video Tools",
            inputs=[
                io.Video.Input("video"),
                io.Float.Input(
                    "start_time", default=0.0, min=-1e5, max=1e5, step=0.001,
                    tooltip="In seconds; negative ones count from the end.",
                ),
                io.Float.Input(
                    "duration", default=0.0, min=0.0, step=0.001, tooltip="In seconds; 0 for all the rest."
                ),
                io.Boolean.Input(
                    "strict_duration", default=False, tooltip="Is a video that is too short an error?"
                ),
            ],
            outputs=[io.Video.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, video, start_time, duration, strict_duration):
        part = video.as_trimmed(start_time, duration, strict_duration=strict_duration)
        if part is None:
            raise ValueError(
                f"The video is {video.get_duration():g} s long: it has no {duration:g} s from "
                f"{start_time:g} s on. Choose a shorter part, or switch strict_duration off."
            )
        return io.NodeOutput(part)


class VideoExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [SaveWEBM, SaveVideo, CreateVideo, GetVideoComponents, LoadVideo, VideoSlice]


def comfy_entrypoint():
    return VideoExtension()
