"""ACE-Step: music from tags and lyrics."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size

TextEncodeAceStepAudio = absent_node(
    "TextEncodeAceStepAudio",
    "ACE-Step",
    category="model/conditioning/ace",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("tags", multiline=True, dynamic_prompts=True),
        io.String.Input("lyrics", multiline=True, dynamic_prompts=True),
        io.Float.Input("lyrics_strength", default=1.0, min=0.0, max=10.0, step=0.01),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


EmptyAceStepLatentAudio = absent_node(
    "EmptyAceStepLatentAudio",
    "ACE-Step",
    display_name="Empty Ace Step 1.0 Latent Audio",
    category="model/latent/ace",
    inputs=lambda: [io.Float.Input("seconds", default=120.0, min=1.0, max=1000.0, step=0.1), batch_size()],
    outputs=lambda: [io.Latent.Output()],
)


TextEncodeAceStepAudio15 = absent_node(
    "TextEncodeAceStepAudio1.5",
    "ACE-Step",
    category="model/conditioning/ace",
    class_name="TextEncodeAceStepAudio15",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("tags", multiline=True, dynamic_prompts=True),
        io.String.Input("lyrics", multiline=True, dynamic_prompts=True),
        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
        io.Int.Input("bpm", default=120, min=10, max=300),
        io.Float.Input("duration", default=120.0, min=0.0, max=2000.0, step=0.1),
        io.Combo.Input("timesignature", options=["2", "3", "4", "6"]),
        io.Combo.Input(
            "language",
            options=[
                "ar",
                "az",
                "bg",
                "bn",
                "ca",
                "cs",
                "da",
                "de",
                "el",
                "en",
                "es",
                "fa",
                "fi",
                "fr",
                "he",
                "hi",
                "hr",
                "ht",
                "hu",
                "id",
                "is",
                "it",
                "ja",
                "ko",
                "la",
                "lt",
                "ms",
                "ne",
                "nl",
                "no",
                "pa",
                "pl",
                "pt",
                "ro",
                "ru",
                "sa",
                "sk",
                "sr",
                "sv",
                "sw",
                "ta",
                "te",
                "th",
                "tl",
                "tr",
                "uk",
                "ur",
                "vi",
                "yue",
                "zh",
                "unknown",
            ],
            default="en",
        ),
        io.Combo.Input(
            "keyscale",
            options=[
                "C major",
                "C# major",
                "Db major",
                "D major",
                "D# major",
                "Eb major",
                "E major",
                "F major",
                "F# major",
                "Gb major",
                "G major",
                "G# major",
                "Ab major",
                "A major",
                "A# major",
                "Bb major",
                "B major",
                "C minor",
                "C# minor",
                "Db minor",
                "D minor",
                "D# minor",
                "Eb minor",
                "E minor",
                "F minor",
                "F# minor",
                "Gb minor",
                "G minor",
                "G# minor",
                "Ab minor",
                "A minor",
                "A# minor",
                "Bb minor",
                "B minor",
            ],
        ),
        io.Boolean.Input("generate_audio_codes", default=True, advanced=True),
        io.Float.Input("cfg_scale", default=2.0, min=0.0, max=100.0, step=0.1, advanced=True),
        io.Float.Input("temperature", default=0.85, min=0.0, max=2.0, step=0.01, advanced=True),
        io.Float.Input("top_p", default=0.9, min=0.0, max=2000.0, step=0.01, advanced=True),
        io.Int.Input("top_k", default=0, min=0, max=100, advanced=True),
        io.Float.Input("min_p", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


EmptyAceStep15LatentAudio = absent_node(
    "EmptyAceStep1.5LatentAudio",
    "ACE-Step",
    display_name="Empty Ace Step 1.5 Latent Audio",
    category="model/latent/ace",
    class_name="EmptyAceStep15LatentAudio",
    inputs=lambda: [io.Float.Input("seconds", default=120.0, min=1.0, max=1000.0, step=0.01), batch_size()],
    outputs=lambda: [io.Latent.Output()],
)


ReferenceAudio = absent_node(
    "ReferenceTimbreAudio",
    "ACE-Step",
    display_name="Set Reference Audio",
    category="model/conditioning",
    class_name="ReferenceAudio",
    is_experimental=True,
    inputs=lambda: [io.Conditioning.Input("conditioning"), io.Latent.Input("latent", optional=True)],
    outputs=lambda: [io.Conditioning.Output()],
)


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
