"""Sound is read, saved, cut, mixed and filtered as its definition says."""

import json

import av
import numpy
import pytest
import torch

import folder_paths
from comfy_api.latest import io
from comfy_extras import audio_signals
from comfy_extras import nodes_audio as topic

RATE = 16000


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def sound(waveform, rate=RATE):
    return {"waveform": torch.as_tensor(waveform, dtype=torch.float32), "sample_rate": rate}


def tone(frequency, seconds=0.5, rate=RATE, channels=1):
    time = numpy.arange(int(seconds * rate)) / rate
    return sound(numpy.tile(0.5 * numpy.sin(2 * numpy.pi * frequency * time), (1, channels, 1)), rate)


def row(*values):
    return sound([[values]], 1)


def given(node, *values, **more):
    return getattr(topic, node).execute(*values, **more)[0]


def samples(audio):
    return audio["waveform"][0, 0].tolist()


def clone_of(node, prompt=None):
    """The class as the executor calls it."""
    return node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.prompt: prompt}})


def strongest(audio):
    """The frequency that there is most of, in hertz."""
    values = audio["waveform"][0, 0].numpy()
    return numpy.abs(numpy.fft.rfft(values)).argmax() * audio["sample_rate"] / len(values)


EDGES = "audio1 audio2"
BANDS = "low_gain_dB low_freq mid_gain_dB mid_freq mid_q high_gain_dB high_freq"


@pytest.mark.parametrize(("node", "inputs", "outputs"), [
    ("EmptyLatentAudio", "seconds batch_size", "LATENT"),
    ("VAEEncodeAudio", "audio vae", "LATENT"),
    ("VAEDecodeAudio", "samples vae", "AUDIO"),
    ("VAEDecodeAudioTiled", "samples vae tile_size overlap", "AUDIO"),
    ("SaveAudio", "audio filename_prefix", "AUDIO"),
    ("SaveAudioMP3", "audio filename_prefix quality", "AUDIO"),
    ("SaveAudioOpus", "audio filename_prefix quality", "AUDIO"),
    ("SaveAudioAdvanced", "audio filename_prefix format", "AUDIO"),
    ("LoadAudio", "audio", "AUDIO"),
    ("PreviewAudio", "audio", "AUDIO"),
    ("ConditioningStableAudio", "positive negative seconds_start seconds_total", "CONDITIONING CONDITIONING"),
    ("RecordAudio", "audio", "AUDIO"),
    ("TrimAudioDuration", "audio start_index duration", "AUDIO"),
    ("SplitAudioChannels", "audio", "AUDIO AUDIO"),
    ("JoinAudioChannels", "audio_left audio_right", "AUDIO"),
    ("AudioConcat", f"{EDGES} direction", "AUDIO"),
    ("AudioMerge", f"{EDGES} merge_method", "AUDIO"),
    ("AudioAdjustVolume", "audio volume", "AUDIO"),
    ("EmptyAudio", "duration sample_rate channels", "AUDIO"),
    ("AudioEqualizer3Band", f"audio {BANDS}", "AUDIO"),
])  # fmt: skip
def test_inputs_and_outputs_are_those_of_workflows(node, inputs, outputs):
    schema = getattr(topic, node).define_schema()
    assert (schema.node_id, " ".join(each.id for each in schema.inputs)) == (node, inputs)
    assert " ".join(getattr(topic, node).RETURN_TYPES) == outputs


SAVERS = [
    ("SaveAudio", {}, "flac", RATE), ("SaveAudioMP3", {"quality": "V0"}, "mp3", RATE),
    ("SaveAudioMP3", {"quality": "320k"}, "mp3", RATE), ("SaveAudioOpus", {"quality": "96k"}, "opus", 16000),
    ("SaveAudioAdvanced", {"format": {"format": "flac"}}, "flac", RATE),
    ("SaveAudioAdvanced", {"format": {"format": "mp3", "quality": "128k"}}, "mp3", RATE),
    ("SaveAudioAdvanced", {"format": {"format": "opus", "quality": "64k"}}, "opus", 16000),
]  # fmt: skip


@pytest.mark.parametrize(("node", "choice", "suffix", "rate"), SAVERS)
def test_saved_sound_is_loaded_again(folders, node, choice, suffix, rate):
    audio = tone(440, channels=2)
    output = clone_of(getattr(topic, node), {"1": {}}).execute(audio, "music/m", **choice)
    (file,) = output.ui.as_dict()["audio"]
    path = folders / "output" / "music" / file["filename"]
    assert output[0] is audio and path.name == f"m_00001_.{suffix}"
    with av.open(str(path)) as container:
        kept = {**container.metadata, **container.streams.audio[0].metadata}
        assert json.loads(kept.get("prompt") or kept["PROMPT"]) == {"1": {}}
    path.rename(folders / "input" / path.name)
    loaded = given("LoadAudio", path.name)
    assert loaded["sample_rate"] in (rate, 48000) and loaded["waveform"].shape[:2] == (1, 2)
    assert strongest(loaded) == pytest.approx(440, abs=3)
    if suffix == "flac":
        torch.testing.assert_close(loaded["waveform"], audio["waveform"], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("kind", "scale"), [("s16", 2**15), ("s32", 2**31), ("flt", 1.0), ("u8", None)])
def test_files_of_every_sample_format_are_read_as_values_of_one(tmp_path, kind, scale):
    codec = {"s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le", "u8": "pcm_u8"}[kind]
    levels = numpy.array([0.0, 0.5, -0.5, 0.25], dtype=numpy.float64)
    raw = levels * 128 + 128 if scale is None else levels * scale
    stored = raw.astype({"s16": "i2", "s32": "i4", "flt": "f4", "u8": "u1"}[kind])
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(stored[None], format=kind, layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    waveform, rate = audio_signals.read_audio(str(path))
    assert rate == 8000 and waveform.dtype == torch.float32
    numpy.testing.assert_allclose(waveform[0].numpy(), levels, atol=1e-6)


def test_a_file_without_sound_is_an_error(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(numpy.zeros((16, 16, 3), numpy.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"silent.mp4' has no sound in it. Choose"):
        audio_signals.read_audio(str(path))


def test_files_of_the_input_folder_are_listed_and_checked(folders):
    for name in ("b.mp3", "a.mp4", "c.png"):
        (folders / "input" / name).write_bytes(name.encode())
    assert topic.LoadAudio.INPUT_TYPES()["required"]["audio"][1]["options"] == ["a.mp4", "b.mp3"]
    assert topic.LoadAudio.validate_inputs("b.mp3") is True
    assert "Invalid audio file: z.mp3" in topic.LoadAudio.validate_inputs("z.mp3")
    prints = topic.LoadAudio.fingerprint_inputs
    assert prints("b.mp3") == prints("b.mp3") != prints("a.mp4")


def test_nothing_recorded_is_an_error(folders):
    with pytest.raises(ValueError, match="Nothing is recorded"):
        given("RecordAudio", "")


def test_sound_is_played_from_the_temporary_folder(folders):
    audio = tone(440)
    output = clone_of(topic.PreviewAudio).execute(audio)
    (file,) = output.ui.as_dict()["audio"]
    assert file["type"] == "temp" and (folders / "temp" / file["filename"]).is_file() and output[0] is audio


@pytest.mark.parametrize("node", ["SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "PreviewAudio"])
def test_a_silent_video_cannot_be_saved_as_sound(node):
    more = () if node == "PreviewAudio" else ("x",)
    with pytest.raises(ValueError, match=r"Audio.* got no sound: the video .* silent"):
        clone_of(getattr(topic, node)).execute(None, *more)


@pytest.mark.parametrize(("start", "duration", "expected"), [
    (1, 2, [1, 2]), (0, 99, [0, 1, 2, 3]), (-2, 1, [2]), (-99, 2, [0, 1]), (3, 5, [3]),
])  # fmt: skip
def test_a_part_of_a_sound_is_taken(start, duration, expected):
    assert samples(given("TrimAudioDuration", row(0, 1, 2, 3), start, duration)) == expected


@pytest.mark.parametrize(("start", "duration"), [(4, 1), (0, 0), (9, 1)])
def test_a_part_with_nothing_in_it_is_an_error(start, duration):
    with pytest.raises(ValueError, match=r"sound is 4 s long: there is nothing in the"):
        given("TrimAudioDuration", row(0, 1, 2, 3), start, duration)


def test_channels_are_split_and_joined():
    stereo = sound([[[1, 2, 3], [4, 5, 6]]], 7)
    left, right = topic.SplitAudioChannels.execute(stereo).result
    assert (samples(left), samples(right), left["sample_rate"]) == ([1, 2, 3], [4, 5, 6], 7)
    assert torch.equal(given("JoinAudioChannels", left, right)["waveform"], stereo["waveform"])
    shorter = {**right, "waveform": right["waveform"][..., :2]}
    assert given("JoinAudioChannels", left, shorter)["waveform"].tolist() == [[[1, 2], [4, 5]]]


def test_channels_that_do_not_fit_are_errors():
    stereo = sound([[[1], [2]]])
    with pytest.raises(ValueError, match="needs stereo; this sound has 1 channels"):
        topic.SplitAudioChannels.execute(row(1))
    with pytest.raises(ValueError, match=r"two mono sounds; these have \[2, 1\] channels"):
        topic.JoinAudioChannels.execute(stereo, row(1))


@pytest.mark.parametrize(("direction", "left"), [("after", [1, 2, 3]), ("before", [3, 1, 2])])
def test_sounds_follow_one_another_in_stereo(direction, left):
    stereo = sound([[[3], [9]]], 1)
    joined = given("AudioConcat", row(1, 2), stereo, direction)["waveform"][0]
    assert joined[0].tolist() == left
    assert joined[1].tolist() == [9 if value == 3 else value for value in left]


@pytest.mark.parametrize(("method", "expected"), [
    ("add", [0.75, 0.25]), ("mean", [0.375, 0.125]), ("subtract", [0.25, 0.25]), ("multiply", [0.125, 0.0]),
])  # fmt: skip
def test_sounds_are_mixed_at_the_length_of_the_first(method, expected):
    assert samples(given("AudioMerge", row(0.5, 0.25), row(0.25), method)) == expected
    longer = row(0.25, 0, 9, 9)
    assert samples(given("AudioMerge", row(0.5, 0.25), longer, method)) == expected


def test_what_gets_too_loud_is_made_quieter_as_a_whole():
    assert samples(given("AudioMerge", row(1, 0.5), row(1, 0.5), "add")) == [1.0, 0.5]


@pytest.mark.parametrize("node", ["AudioConcat", "AudioMerge", "JoinAudioChannels"])
def test_sounds_of_two_rates_get_the_higher_one(node):
    choice = {"AudioConcat": ("after",), "AudioMerge": ("add",), "JoinAudioChannels": ()}[node]
    result = given(node, tone(440, rate=8000), tone(440, rate=12000), *choice)
    assert result["sample_rate"] == 12000
    first = {**result, "waveform": result["waveform"][..., :6000]}
    assert strongest(first) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("node", ["AudioConcat", "AudioMerge", "JoinAudioChannels"])
def test_silence_beside_a_sound_leaves_the_sound(node):
    choice = {"AudioConcat": ("after",), "AudioMerge": ("add",), "JoinAudioChannels": ()}[node]
    audio = row(1)
    assert given(node, None, audio, *choice) is audio and given(node, audio, None, *choice) is audio
    assert given(node, None, None, *choice) is None


@pytest.mark.parametrize(("rate", "wanted"), [(16000, 24000), (44100, 16000), (48000, 44100)])
def test_a_tone_keeps_its_pitch_and_strength_at_another_rate(rate, wanted):
    audio = tone(1000, rate=rate)
    result = audio_signals.resampled(audio["waveform"], rate, wanted)
    assert result.shape[-1] == -(-audio["waveform"].shape[-1] * wanted // rate)
    expected = tone(1000, rate=wanted)["waveform"][..., 200:-200]
    torch.testing.assert_close(result[..., 200 : 200 + expected.shape[-1]], expected, atol=2e-2, rtol=0)


def test_tones_that_the_lower_rate_cannot_hold_are_gone():
    result = audio_signals.resampled(tone(7000, rate=24000)["waveform"], 24000, 8000)
    assert result[..., 100:-100].abs().max() < 0.02


@pytest.mark.parametrize(("volume", "factor"), [(6, 1.99526), (-20, 0.1), (0, 1.0)])
def test_volume_is_in_decibels(volume, factor):
    assert samples(given("AudioAdjustVolume", row(0.1), volume)) == pytest.approx([0.1 * factor], rel=1e-4)


def test_silence_has_the_length_and_channels_that_are_asked_for():
    empty = given("EmptyAudio", 0.5, 8000, 2)
    assert empty["waveform"].shape == (1, 2, 4000) and not empty["waveform"].any()


def change(frequency, **bands):
    """By how many decibels the equalizer changes a tone of a frequency."""
    chosen = {"low_gain_dB": 0, "low_freq": 100, "mid_gain_dB": 0, "mid_freq": 1000, "mid_q": 2.0,
              "high_gain_dB": 0, "high_freq": 5000, **bands}  # fmt: skip
    audio = tone(frequency, seconds=1.0, rate=32000)
    quiet = {**audio, "waveform": audio["waveform"] * 0.1}
    after = given("AudioEqualizer3Band", quiet, **chosen)["waveform"][..., 16000:]
    return 20 * numpy.log10(float(after.std() / quiet["waveform"][..., 16000:].std()))


@pytest.mark.parametrize(("bands", "changes"), [
    ({"low_gain_dB": 12}, {20: 12, 100: 6, 4000: 0}),
    ({"mid_gain_dB": -9}, {50: 0, 1000: -9, 12000: 0}),
    ({"high_gain_dB": 6}, {50: 0, 5000: 3, 15000: 6}),
    ({"low_gain_dB": -6, "high_gain_dB": 6}, {20: -6, 15000: 6}),
])  # fmt: skip
def test_each_band_changes_its_own_tones(bands, changes):
    assert {one: change(one, **bands) for one in changes} == pytest.approx(changes, abs=0.35)


def test_a_band_above_all_tones_is_an_error():
    with pytest.raises(
        ValueError, match="8000 samples per second hold no tones of 5000 Hz. Choose less than 4000"
    ):
        audio_signals.high_shelf(3.0, 5000, 0.7, 8000)


@pytest.mark.parametrize("node", ["TrimAudioDuration", "AudioAdjustVolume", "AudioEqualizer3Band"])
def test_no_sound_stays_no_sound(node):
    others = {"TrimAudioDuration": (0, 1), "AudioAdjustVolume": (3,), "AudioEqualizer3Band": (1,) * 7}[node]
    assert given(node, None, *others) is None


def test_an_empty_latent_is_as_long_as_its_seconds():
    latent = given("EmptyLatentAudio", 47.6, 2)
    assert latent["samples"].shape == (2, 64, 1024)  # 47.6 s * 44100 / 2048 samples, made even
    assert (latent["type"], latent["downscale_ratio_temporal"]) == ("audio", 2048)


def test_both_sides_are_told_where_the_sound_begins():
    sides = topic.ConditioningStableAudio.execute([["p", {}]], [["n", {"x": 1}]], 1.5, 30.0).result
    times = {"seconds_start": 1.5, "seconds_total": 30.0}
    assert sides == ([["p", times]], [["n", {"x": 1, **times}]])


class HalvingVAE:
    """Every two samples become one, and back: a VAE whose result is known."""

    audio_sample_rate = 8000

    def encode(self, pixels):
        return pixels.movedim(-1, 1)[..., ::2]

    def decode(self, latent):
        return latent.repeat_interleave(2, dim=-1).movedim(1, -1)

    def decode_tiled(self, latent, tile_x, tile_y, overlap):
        self.tiles = (tile_x, tile_y, overlap)
        return self.decode(latent)


def test_sound_is_encoded_at_the_rate_of_the_vae_and_decoded():
    latent = given("VAEEncodeAudio", tone(200, rate=16000), HalvingVAE())
    assert latent["samples"].shape == (1, 1, 2000)
    decoded = given("VAEDecodeAudio", latent, HalvingVAE())
    assert decoded["sample_rate"] == 8000 and strongest(decoded) == pytest.approx(200, abs=2)
    vae = HalvingVAE()
    tiled = given("VAEDecodeAudioTiled", latent, vae, 64, 16)
    assert vae.tiles == (64, 64, 16) and torch.equal(tiled["waveform"], decoded["waveform"] * 1)


def test_decoded_sound_is_made_quieter_only_if_it_is_too_loud():
    quiet = torch.tensor([[[0.01, -0.01] * 8]])
    assert torch.equal(
        given("VAEDecodeAudio", {"samples": quiet}, HalvingVAE())["waveform"].mT[0, ::2, 0], quiet[0, 0]
    )
    loud = given("VAEDecodeAudio", {"samples": quiet * 1000, "sample_rate": 9}, HalvingVAE())
    assert float(loud["waveform"].std()) == pytest.approx(0.2) and loud["sample_rate"] == 9


def test_without_sound_there_is_nothing_to_encode():
    with pytest.raises(ValueError, match="VAE Encode Audio got no sound"):
        topic.VAEEncodeAudio.execute(None, HalvingVAE())
