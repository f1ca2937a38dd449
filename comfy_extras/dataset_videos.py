"""Nodes that cut, sample and shuffle videos. `nodes_dataset` registers them."""

from __future__ import annotations

from comfy_api.latest import InputImpl, Types, io


def random_state(seed):
    """numpy's generator of a seed of 64 bits, which it takes only 32 of."""
    import numpy

    return numpy.random.RandomState(seed % (2**32 - 1))


def _cut(video, first, count):
    """A part of a video, by numbers of pictures; nothing is decoded."""
    rate = float(video.get_frame_rate())
    return video.as_trimmed(first / rate, count / rate, strict_duration=False)


def _pictures_at(video, indices):
    """Some pictures (B, H, W, 3) of a video; only those are kept while it is decoded."""
    import torch

    from comfy_api.latest._input_impl import decoding

    if not isinstance(video, InputImpl.VideoFromFile):
        return video.get_components().images[indices]
    start, _ = video.get_active_trim_window()
    found = {}

    def decode(container):
        stream = decoding.video_stream(container)
        earliest = start - float(stream.time_base) / 2
        frames = (one for one in container.decode(stream) if one.time is None or one.time >= earliest)
        for index, frame in enumerate(frames):
            if index in indices:
                found[index] = torch.from_numpy(frame.to_ndarray(format="rgb24")).float() / 255
            if index >= indices[-1]:
                return

    decoding.read(video.get_stream_source(), decode)
    return torch.stack([found[index] for index in indices])


class VideoFrameSampleNode(io.ComfyNode):
    """Some pictures of a video."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VideoFrameSample",
            display_name="Sample Video Frame",
            category="video",
            description="Takes some pictures of a video: spread evenly, the first, the last, or at random.",
            search_aliases=["sample frames", "extract frames"],
            inputs=[
                io.Video.Input("video"),
                io.Int.Input("num_frames", default=16, min=1, max=9999),
                io.Combo.Input("strategy", options=["uniform", "head", "tail", "random"], default="uniform"),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, tooltip="For strategy random."
                ),
            ],
            outputs=[io.Video.Output(display_name="video")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, video, num_frames, strategy, seed):
        total = video.get_frame_count()
        count = min(num_frames, total)
        if strategy in ("head", "tail"):
            return io.NodeOutput(_cut(video, 0 if strategy == "head" else total - count, count))
        if strategy == "random":
            indices = sorted(random_state(seed).choice(total, size=count, replace=False).tolist())
        elif count == 1:
            indices = [total // 2]
        else:
            indices = [round(index * (total - 1) / (count - 1)) for index in range(count)]
        pictures = _pictures_at(video, indices)
        components = Types.VideoComponents(images=pictures, frame_rate=video.get_frame_rate())
        return io.NodeOutput(InputImpl.VideoFromComponents(components))


class VideoTemporalCropNode(io.ComfyNode):
    """A part of a video."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VideoTemporalCrop",
            display_name="Crop Video (Temporal)",
            category="video/transform",
            description="Cuts a part out of a video.",
            search_aliases=["crop", "crop video", "temporal crop", "truncate video"],
            inputs=[
                io.Video.Input("video"),
                io.Int.Input("start_frame", default=0, min=0, max=99999),
                io.Int.Input("length", default=16, min=1, max=99999, tooltip="Number of pictures."),
            ],
            outputs=[io.Video.Output(display_name="video")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, video, start_frame, length):
        total = video.get_frame_count()
        first = min(start_frame, max(total - 1, 0))
        return io.NodeOutput(_cut(video, first, min(length, total - first)))


class VideoRandomTemporalCropNode(io.ComfyNode):
    """Any part of a video."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VideoRandomTemporalCrop",
            display_name="Crop Video (Temporal Random)",
            category="video/transform",
            description="Cuts a part out of a video, at random.",
            search_aliases=["crop", "crop video", "temporal crop", "truncate video", "random crop"],
            inputs=[
                io.Video.Input("video"),
                io.Int.Input("length", default=16, min=1, max=99999, tooltip="Number of pictures."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
            ],
            outputs=[io.Video.Output(display_name="video")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, video, length, seed):
        total = video.get_frame_count()
        length = min(length, total)
        first = random_state(seed).randint(0, total - length + 1) if total > length else 0
        return io.NodeOutput(_cut(video, first, length))


class ShuffleVideoDatasetNode(io.ComfyNode):
    """Videos in another order."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ShuffleVideoDataset",
            display_name="Shuffle Videos List",
            category="video/batch",
            description="Shuffles a list of videos.",
            search_aliases=["shuffle", "randomize", "mix"],
            inputs=[
                io.Video.Input("videos"),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
            ],
            outputs=[io.Video.Output(display_name="videos", is_output_list=True)],
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, videos, seed):
        return io.NodeOutput([videos[index] for index in random_state(seed[0]).permutation(len(videos))])


class ShuffleVideoTextDatasetNode(io.ComfyNode):
    """Videos and texts in another order."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ShuffleVideoTextDataset",
            display_name="Shuffle Pairs of Video-Text",
            category="dataset/video",
            description="Shuffles a list of videos and their texts together.",
            search_aliases=["shuffle", "randomize", "mix"],
            inputs=[
                io.Video.Input("videos"),
                io.String.Input("texts"),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
            ],
            outputs=[
                io.Video.Output(display_name="videos", is_output_list=True),
                io.String.Output(display_name="texts", is_output_list=True),
            ],
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, videos, texts, seed):
        order = random_state(seed[0]).permutation(len(videos))
        return io.NodeOutput([videos[index] for index in order], [texts[index] for index in order])
