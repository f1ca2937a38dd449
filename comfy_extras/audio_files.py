"""Nodes that save, play and load sound."""

from __future__ import annotations

import os

import folder_paths
from comfy_api.latest import io, ui

QUALITIES = {"mp3": ["V0", "128k", "320k"], "opus": ["64k", "96k", "128k", "192k", "320k"]}
DEFAULT_QUALITY = {"mp3": "V0", "opus": "128k"}


def sound(waveform, sample_rate):
    """The output of a node that gives one sound: waveform (B, channels, samples)."""
    return io.NodeOutput({"waveform": waveform, "sample_rate": sample_rate})


def needed(audio, node):
    """The sound, or a ValueError that names the node if there is none."""
    if audio is None:
        raise ValueError(f"{node} got no sound: the video that it comes from is silent. Link another source.")
    return audio


def _saver(node_id, title, alias, inputs=(), **more):
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category="audio",
        description="Saves sound in the output folder, one file for each of the batch.",
        search_aliases=alias,
        is_output_node=True,
        inputs=[
            io.Audio.Input("audio"),
            io.String.Input("filename_prefix", default="audio/ComfyUI"),
            *inputs,
        ],
        outputs=[io.Audio.Output(display_name="audio")],
        **more,
    )


def _quality(format):
    tooltip = "V0 varies the bits by what is heard." if format == "mp3" else "Bits per second."
    return io.Combo.Input(
        "quality", options=QUALITIES[format], default=DEFAULT_QUALITY[format], tooltip=tooltip
    )


def _saved(cls, audio, prefix, **how):
    audio = needed(audio, cls._schema().display_name)
    shown = ui.AudioSaveHelper.get_save_audio_ui(audio, filename_prefix=prefix, cls=cls, **how)
    return io.NodeOutput(audio, ui=shown)


class SaveAudio(io.ComfyNode):
    """Sound as FLAC."""

    @classmethod
    def define_schema(cls):
        title = "Save Audio (FLAC) (DEPRECATED)"
        return _saver("SaveAudio", title, ["export flac"], is_deprecated=True, essentials_category="Audio")

    @classmethod
    def execute(cls, audio, filename_prefix="ComfyUI"):
        return _saved(cls, audio, filename_prefix, format="flac")


class SaveAudioMP3(io.ComfyNode):
    """Sound as MP3."""

    @classmethod
    def define_schema(cls):
        more = {"is_deprecated": True, "essentials_category": "Audio"}
        title = "Save Audio (MP3) (DEPRECATED)"
        return _saver("SaveAudioMP3", title, ["export mp3"], [_quality("mp3")], **more)

    @classmethod
    def execute(cls, audio, filename_prefix="ComfyUI", quality="128k"):
        return _saved(cls, audio, filename_prefix, format="mp3", quality=quality)


class SaveAudioOpus(io.ComfyNode):
    """Sound as Opus."""

    @classmethod
    def define_schema(cls):
        title = "Save Audio (Opus) (DEPRECATED)"
        return _saver("SaveAudioOpus", title, ["export opus"], [_quality("opus")], is_deprecated=True)

    @classmethod
    def execute(cls, audio, filename_prefix="ComfyUI", quality="128k"):
        return _saved(cls, audio, filename_prefix, format="opus", quality=quality)


class SaveAudioAdvanced(io.ComfyNode):
    """Sound in a format of choice."""

    @classmethod
    def define_schema(cls):
        options = [io.DynamicCombo.Option("flac", [])]
        options += [io.DynamicCombo.Option(name, [_quality(name)]) for name in QUALITIES]
        aliases = [
            "save audio", "export audio", "output audio", "write audio", "flac", "mp3", "opus",
        ]  # fmt: skip
        format = io.DynamicCombo.Input("format", options=options, tooltip="flac loses nothing.")
        return _saver("SaveAudioAdvanced", "Save Audio (Advanced)", aliases, [format])

    @classmethod
    def execute(cls, audio, filename_prefix, format):
        quality = {"quality": format["quality"]} if format.get("quality") else {}
        return _saved(cls, audio, filename_prefix, format=format["format"], **quality)


class PreviewAudio(io.ComfyNode):
    """Plays sound."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PreviewAudio",
            display_name="Preview Audio",
            category="audio",
            description="Plays sound without keeping it.",
            search_aliases=["play audio"],
            is_output_node=True,
            inputs=[io.Audio.Input("audio")],
            outputs=[io.Audio.Output(display_name="audio")],
        )

    @classmethod
    def execute(cls, audio):
        return io.NodeOutput(audio, ui=ui.PreviewAudio(needed(audio, "Preview Audio"), cls=cls))


def _loaded(name):
    from comfy_extras import audio_signals

    waveform, rate = audio_signals.read_audio(folder_paths.get_annotated_filepath(name))
    return sound(waveform.unsqueeze(0), rate)


def _sound_files():
    folder = folder_paths.get_input_directory()
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(folder_paths.filter_files_content_types(names, ["audio", "video"]))


class LoadAudio(io.ComfyNode):
    """Sound of a file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadAudio",
            display_name="Load Audio",
            category="audio",
            description="Loads sound, also that of a video.",
            search_aliases=["import audio", "open audio", "audio file"],
            essentials_category="Audio",
            inputs=[io.Combo.Input("audio", options=_sound_files(), upload=io.UploadType.audio)],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, audio):
        return _loaded(audio)

    @classmethod
    def fingerprint_inputs(cls, audio):
        from comfy.picture_files import content_hash

        return content_hash(folder_paths.get_annotated_filepath(audio))

    @classmethod
    def validate_inputs(cls, audio):
        if folder_paths.exists_annotated_filepath(audio):
            return True
        return f"Invalid audio file: {audio}. It is not there any more; upload it again or choose another."


class RecordAudio(io.ComfyNode):
    """Sound of a microphone."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RecordAudio",
            display_name="Record Audio",
            category="audio",
            description="Records what the browser's microphone hears.",
            search_aliases=["microphone input", "audio capture", "voice input"],
            inputs=[io.Custom("AUDIO_RECORD").Input("audio")],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, audio):
        if not audio or not folder_paths.exists_annotated_filepath(audio):
            raise ValueError("Nothing is recorded. Press the button of the node, speak, and press it again.")
        return _loaded(audio)
