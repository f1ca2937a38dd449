"""ACE-Step: music from tags and lyrics."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import zeros
from comfy_extras.video_inputs import batch_size

LANGUAGES = """
    ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt
    ro ru sa sk sr sv sw ta te th tl tr uk ur vi yue zh unknown
""".split()
KEYS = [
    f"{root} {quality}"
    for quality in ("major", "minor")
    for root in "C C# Db D D# Eb E F F# Gb G G# Ab A A# Bb B".split()
]


class TextEncodeAceStepAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextEncodeAceStepAudio",
            category="model/conditioning/ace",
            description="Encodes the tags and the lyrics of a piece of music.",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("tags", multiline=True, dynamic_prompts=True),
                io.String.Input("lyrics", multiline=True, dynamic_prompts=True),
                io.Float.Input("lyrics_strength", default=1.0, min=0.0, max=10.0, step=0.01),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, tags, lyrics, lyrics_strength):
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(tags, lyrics=lyrics))
        strength = {"lyrics_strength": lyrics_strength}
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, strength))


class EmptyAceStepLatentAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyAceStepLatentAudio",
            display_name="Empty Ace Step 1.0 Latent Audio",
            category="model/latent/ace",
            description="Silence for ACE-Step 1.0, of a length in seconds.",
            inputs=[io.Float.Input("seconds", default=120.0, min=1.0, max=1000.0, step=0.1), batch_size()],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, seconds, batch_size):
        frames = int(seconds * 44100 / 512 / 8)  # 44.1 kHz, hops of 512, 8 of them in one latent
        return io.NodeOutput({"samples": zeros(batch_size, 8, 16, frames), "type": "audio"})


class TextEncodeAceStepAudio15(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextEncodeAceStepAudio1.5",
            category="model/conditioning/ace",
            description=(
                "Encodes the tags and the lyrics of a piece of music, with its tempo, length, metre, "
                "language and key."
            ),
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("tags", multiline=True, dynamic_prompts=True),
                io.String.Input("lyrics", multiline=True, dynamic_prompts=True),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
                io.Int.Input("bpm", default=120, min=10, max=300),
                io.Float.Input("duration", default=120.0, min=0.0, max=2000.0, step=0.1),
                io.Combo.Input("timesignature", options=["2", "3", "4", "6"]),
                io.Combo.Input("language", options=LANGUAGES, default="en"),
                io.Combo.Input("keyscale", options=KEYS),
                io.Boolean.Input("generate_audio_codes", default=True, advanced=True),
                io.Float.Input("cfg_scale", default=2.0, min=0.0, max=100.0, step=0.1, advanced=True),
                io.Float.Input("temperature", default=0.85, min=0.0, max=2.0, step=0.01, advanced=True),
                io.Float.Input("top_p", default=0.9, min=0.0, max=2000.0, step=0.01, advanced=True),
                io.Int.Input("top_k", default=0, min=0, max=100, advanced=True),
                io.Float.Input("min_p", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, tags, lyrics, timesignature, **how):
        tokens = clip.tokenize(tags, lyrics=lyrics, timesignature=int(timesignature), **how)
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))


class EmptyAceStep15LatentAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyAceStep1.5LatentAudio",
            display_name="Empty Ace Step 1.5 Latent Audio",
            category="model/latent/ace",
            description="Silence for ACE-Step 1.5, of a length in seconds.",
            inputs=[io.Float.Input("seconds", default=120.0, min=1.0, max=1000.0, step=0.01), batch_size()],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, seconds, batch_size):
        frames = round(seconds * 48000 / 1920)  # 48 kHz, 1920 samples in one latent
        samples = zeros(batch_size, 64, frames)
        return io.NodeOutput({"samples": samples, "type": "audio", "downscale_ratio_temporal": 1764})


class ReferenceAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReferenceTimbreAudio",
            display_name="Set Reference Audio",
            category="model/conditioning",
            description="Gives a sound whose timbre the music takes.",
            inputs=[io.Conditioning.Input("conditioning"), io.Latent.Input("latent", optional=True)],
            outputs=[io.Conditioning.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, conditioning, latent=None):
        if latent is None:
            return io.NodeOutput(conditioning)
        timbre = {"reference_audio_timbre_latents": [latent["samples"]]}
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, timbre, append=True))


class AceExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            TextEncodeAceStepAudio,
            EmptyAceStepLatentAudio,
            TextEncodeAceStepAudio15,
            EmptyAceStep15LatentAudio,
            ReferenceAudio,
        ]


def comfy_entrypoint():
    return AceExtension()
