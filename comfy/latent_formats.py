"""How the latents of a model family relate to what its VAE makes, and how to preview them.

`latent_rgb_factors` are the published linear approximations: one row of R, G, B per latent channel.
A format stands here whether or not its models run here: node packs make and preview latents of all.
"""

import torch

from comfy.latent_numbers import MEAN, RGB, STD


class LatentFormat:
    """Latents that need no scaling; families subclass this with their numbers."""

    scale_factor = 1.0
    latent_channels = 4
    latent_dimensions = 2
    latent_rgb_factors = None
    latent_rgb_factors_bias = None
    latent_rgb_factors_reshape = None
    taesd_decoder_name = None
    spacial_downscale_ratio = 8
    temporal_downscale_ratio = 1

    def process_in(self, latent):
        """From the VAE's latents to the model's."""
        return latent * self.scale_factor

    def process_out(self, latent):
        """From the model's latents to the VAE's."""
        return latent / self.scale_factor


class SD15(LatentFormat):
    """Stable Diffusion 1.x and 2.x."""

    def __init__(self, scale_factor=0.18215):
        self.scale_factor = scale_factor
        self.latent_rgb_factors = [
            [0.3512, 0.2297, 0.3227],
            [0.3250, 0.4974, 0.2350],
            [-0.2829, 0.1762, 0.2721],
            [-0.2120, -0.2616, -0.7177],
        ]
        self.taesd_decoder_name = "taesd_decoder"


class SDXL(LatentFormat):
    """Stable Diffusion XL."""

    scale_factor = 0.13025

    def __init__(self):
        self.latent_rgb_factors = [
            [0.3651, 0.4232, 0.4341],
            [-0.2533, -0.0042, 0.1068],
            [0.1076, 0.1111, -0.0362],
            [-0.3165, -0.2492, -0.2188],
        ]
        self.latent_rgb_factors_bias = [0.1084, -0.0175, -0.0011]
        self.taesd_decoder_name = "taesdxl_decoder"


class SDXL_Playground_2_5(LatentFormat):  # noqa: N801 - the name that packs import
    """Playground 2.5: SDXL's VAE, its latents normalised per channel to a deviation of 0.5."""

    scale_factor = 0.5

    def __init__(self):
        self.latents_mean = [-1.6574, 1.886, -1.383, 2.5155]
        self.latents_std = [8.4927, 5.9022, 6.5498, 5.2299]
        self.latent_rgb_factors = [
            [0.3920, 0.4054, 0.4549],
            [-0.2634, -0.0196, 0.0653],
            [0.0568, 0.1687, -0.0755],
            [-0.3112, -0.2359, -0.2076],
        ]
        self.taesd_decoder_name = "taesdxl_decoder"

    def _per_channel(self, latent):
        mean, std = (latent.new_tensor(row).view(1, 4, 1, 1) for row in (self.latents_mean, self.latents_std))
        return mean, std

    def process_in(self, latent):
        mean, std = self._per_channel(latent)
        return (latent - mean) * self.scale_factor / std

    def process_out(self, latent):
        mean, std = self._per_channel(latent)
        return latent * std / self.scale_factor + mean


class Flux(LatentFormat):
    """Flux.1: 16 channels, shifted before they are scaled."""

    latent_channels = 16

    def __init__(self):
        self.scale_factor = 0.3611
        self.shift_factor = 0.1159
        self.latent_rgb_factors = [
            [-0.0346, 0.0244, 0.0681], [0.0034, 0.0210, 0.0687], [0.0275, -0.0668, -0.0433],
            [-0.0174, 0.0160, 0.0617], [0.0859, 0.0721, 0.0329], [0.0004, 0.0383, 0.0115],
            [0.0405, 0.0861, 0.0915], [-0.0236, -0.0185, -0.0259], [-0.0245, 0.0250, 0.1180],
            [0.1008, 0.0755, -0.0421], [-0.0515, 0.0201, 0.0011], [0.0428, -0.0012, -0.0036],
            [0.0817, 0.0765, 0.0749], [-0.1264, -0.0522, -0.1103], [-0.0280, -0.0881, -0.0499],
            [-0.1262, -0.0982, -0.0778],
        ]  # fmt: skip
        self.latent_rgb_factors_bias = [-0.0329, -0.0718, -0.0851]
        self.taesd_decoder_name = "taef1_decoder"

    def process_in(self, latent):
        return (latent - self.shift_factor) * self.scale_factor

    def process_out(self, latent):
        return latent / self.scale_factor + self.shift_factor


class SD3(LatentFormat):
    """Stable Diffusion 3: shifted before they are scaled."""

    latent_channels = 16
    scale_factor = 1.5305
    shift_factor = 0.0609
    latent_rgb_factors = RGB["SD3"]
    latent_rgb_factors_bias = [0.2394, 0.2135, 0.1925]
    taesd_decoder_name = "taesd3_decoder"

    def process_in(self, latent):
        return (latent - self.shift_factor) * self.scale_factor

    def process_out(self, latent):
        return latent / self.scale_factor + self.shift_factor


class _PerChannel(LatentFormat):
    """Each channel normalised by its mean and deviation."""

    latents_mean: torch.Tensor
    latents_std: torch.Tensor

    def _numbers(self, latent):
        return self.latents_mean.to(latent), self.latents_std.to(latent)

    def process_in(self, latent):
        mean, std = self._numbers(latent)
        return (latent - mean) * self.scale_factor / std

    def process_out(self, latent):
        mean, std = self._numbers(latent)
        return latent * std / self.scale_factor + mean


def _column(numbers, sides: int):
    """(1, channels, 1, ...) with so many sides of one."""
    return torch.tensor(numbers).reshape(1, -1, *([1] * sides))


class SD_X4(LatentFormat):  # noqa: N801 - the name that packs import
    """Stable Diffusion's upscaler by four."""

    scale_factor = 0.08333
    latent_rgb_factors = RGB["SD_X4"]


class SC_Prior(LatentFormat):  # noqa: N801 - the name that packs import
    """Stable Cascade, stage C."""

    latent_channels = 16
    spacial_downscale_ratio = 42
    latent_rgb_factors = RGB["SC_Prior"]


class SC_B(LatentFormat):  # noqa: N801 - the name that packs import
    """Stable Cascade, stage B."""

    scale_factor = 1.0 / 0.43
    spacial_downscale_ratio = 4
    latent_rgb_factors = RGB["SC_B"]


class Flux2(LatentFormat):
    """Flux.2: 32 channels of 2x2 pixels each, normalised by the autoencoder."""

    latent_channels = 128
    spacial_downscale_ratio = 16
    latent_rgb_factors = RGB["Flux2"]
    latent_rgb_factors_bias = [-0.0329, -0.0718, -0.0851]
    latent_rgb_factors_reshape = staticmethod(lambda latent: torch.nn.functional.pixel_shuffle(latent, 2))
    taesd_decoder_name = "taef2_decoder"


class StableAudio1(LatentFormat):
    """Stable Audio: channels over time."""

    latent_channels = 64
    latent_dimensions = 1
    temporal_downscale_ratio = 2048


class StableAudio3(LatentFormat):
    """Stable Audio 3."""

    latent_channels = 256
    latent_dimensions = 1
    temporal_downscale_ratio = 4096


class ACEAudio(LatentFormat):
    """ACE-Step."""

    latent_channels = 8
    latent_dimensions = 2


class ACEAudio15(LatentFormat):
    """ACE-Step 1.5."""

    latent_channels = 64
    latent_dimensions = 1
    temporal_downscale_ratio = 1764


class MiniMaxMusic3(LatentFormat):
    """MiniMax Music 3."""

    latent_channels = 128
    latent_dimensions = 1
    temporal_downscale_ratio = 512


class Mochi(_PerChannel):
    """Mochi 1; clips (B, C, frames, H, W)."""

    latent_channels = 12
    latent_dimensions = 3
    temporal_downscale_ratio = 6
    latent_rgb_factors = RGB["Mochi"]
    latent_rgb_factors_bias = [-0.0940, -0.1418, -0.1453]
    latents_mean = _column(MEAN["Mochi"], 3)
    latents_std = _column(STD["Mochi"], 3)


class LTXV(LatentFormat):
    """LTX-Video."""

    latent_channels = 128
    latent_dimensions = 3
    spacial_downscale_ratio = 32
    temporal_downscale_ratio = 8
    latent_rgb_factors = RGB["LTXV"]
    latent_rgb_factors_bias = [-0.0571, -0.1657, -0.2512]


class LTXAV(LTXV):
    """LTX-2, video with sound."""

    latent_rgb_factors = RGB["LTXAV"]
    latent_rgb_factors_bias = [-0.347892, -0.363814, -0.370287]


class MiniMaxH3Video(LatentFormat):
    """MiniMax H3, video."""

    latent_channels = 24
    latent_dimensions = 3
    spacial_downscale_ratio = 16
    temporal_downscale_ratio = 4
    latent_rgb_factors = RGB["MiniMaxH3Video"]
    latent_rgb_factors_bias = [0.057426, -0.022078, -0.071449]
    taesd_decoder_name = "taeh3"


class MiniMaxH3AV(MiniMaxH3Video):
    """MiniMax H3, video with sound."""

    latent_channels = 32


class HunyuanVideo(LatentFormat):
    """HunyuanVideo."""

    latent_channels = 16
    latent_dimensions = 3
    temporal_downscale_ratio = 4
    scale_factor = 0.476986
    latent_rgb_factors = RGB["HunyuanVideo"]
    latent_rgb_factors_bias = [0.0259, -0.0192, -0.0761]
    taesd_decoder_name = "taehv"


class HunyuanVideo15(LatentFormat):
    """HunyuanVideo 1.5."""

    latent_channels = 32
    latent_dimensions = 3
    spacial_downscale_ratio = 16
    temporal_downscale_ratio = 4
    scale_factor = 1.03682
    latent_rgb_factors = RGB["HunyuanVideo15"]
    latent_rgb_factors_bias = [0.0456, -0.0202, -0.0644]
    taesd_decoder_name = "lighttaehy1_5"


class HunyuanImage21(LatentFormat):
    """HunyuanImage 2.1."""

    latent_channels = 64
    spacial_downscale_ratio = 32
    scale_factor = 0.75289
    latent_rgb_factors = RGB["HunyuanImage21"]
    latent_rgb_factors_bias = [0.0007, -0.0256, -0.0206]


class HunyuanImage21Refiner(LatentFormat):
    """HunyuanImage 2.1's refiner: two frames are one, with twice the channels; the first is doubled."""

    latent_channels = 64
    latent_dimensions = 3
    scale_factor = 1.03682

    def process_in(self, latent):
        frames = torch.cat([latent[:, :, :1], latent], dim=2) * self.scale_factor
        pairs = frames.unflatten(2, (-1, 2))  # (B, C, frames / 2, 2, H, W)
        return pairs.movedim(3, 1).flatten(1, 2).contiguous()

    def process_out(self, latent):
        pairs = (latent / self.scale_factor).unflatten(1, (2, -1))
        return pairs.movedim(1, 3).flatten(2, 3)[:, :, 1:]


class Cosmos1CV8x8x8(LatentFormat):
    """Cosmos 1."""

    latent_channels = 16
    latent_dimensions = 3
    temporal_downscale_ratio = 8
    latent_rgb_factors = RGB["Cosmos1CV8x8x8"]
    latent_rgb_factors_bias = [-0.1223, -0.1889, -0.1976]


class Wan21(_PerChannel):
    """Wan 2.1; also of Qwen-Image, Cosmos Predict 2 and Anima."""

    latent_channels = 16
    latent_dimensions = 3
    temporal_downscale_ratio = 4
    latent_rgb_factors = RGB["Wan21"]
    latent_rgb_factors_bias = [-0.1835, -0.0868, -0.3360]
    latents_mean = _column(MEAN["Wan21"], 3)
    latents_std = _column(STD["Wan21"], 3)
    taesd_decoder_name = "lighttaew2_1"


class Wan22(Wan21):
    """Wan 2.2's own autoencoder."""

    latent_channels = 48
    spacial_downscale_ratio = 16
    latent_rgb_factors = RGB["Wan22"]
    latent_rgb_factors_bias = [0.0317, -0.0878, -0.1388]
    latents_mean = _column(MEAN["Wan22"], 3)
    latents_std = _column(STD["Wan22"], 3)
    taesd_decoder_name = "lighttaew2_2"


class SeedVR2(LatentFormat):
    """SeedVR2."""

    latent_channels = 16
    latent_dimensions = 3


class CogVideoX(LatentFormat):
    """CogVideoX."""

    latent_channels = 16
    latent_dimensions = 3
    temporal_downscale_ratio = 4
    scale_factor = 1.15258426


class CogVideoX1_5(CogVideoX):  # noqa: N801 - the name that packs import
    """CogVideoX 1.5."""

    scale_factor = 0.7


class Hunyuan3Dv2(LatentFormat):
    """Hunyuan3D 2: channels of points."""

    latent_channels = 64
    latent_dimensions = 1
    scale_factor = 0.9990943042622529


class Hunyuan3Dv2_1(LatentFormat):  # noqa: N801 - the name that packs import
    """Hunyuan3D 2.1."""

    latent_channels = 64
    latent_dimensions = 1
    scale_factor = 1.0039506158752403


class Hunyuan3Dv2mini(LatentFormat):
    """Hunyuan3D 2 mini."""

    latent_channels = 64
    latent_dimensions = 1
    scale_factor = 1.0188137142395404


class TripoSplat(LatentFormat):
    """TripoSplat."""

    latent_channels = 16


class Trellis2(LatentFormat):
    """TRELLIS.2, stage 1."""

    latent_channels = 32


class Trellis2SLAT(_PerChannel):
    """TRELLIS.2's structured latents, (points, channels)."""

    latent_channels = 32


class Trellis2ShapeSLAT(Trellis2SLAT):
    """Those of shapes."""

    latents_mean = _column(MEAN["Trellis2ShapeSLAT"], 0)
    latents_std = _column(STD["Trellis2ShapeSLAT"], 0)


class Trellis2TexSLAT(Trellis2SLAT):
    """Those of textures."""

    latents_mean = _column(MEAN["Trellis2TexSLAT"], 0)
    latents_std = _column(STD["Trellis2TexSLAT"], 0)


class ChromaRadiance(LatentFormat):
    """Pixels in -1..1 in place of latents."""

    latent_channels = 3
    spacial_downscale_ratio = 1
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    def process_in(self, latent):
        return latent

    def process_out(self, latent):
        return latent


class ZImagePixelSpace(ChromaRadiance):
    """Z-Image on pixels."""


class HiDreamO1Pixel(ChromaRadiance):
    """HiDream O1."""


class PixelDiTPixel(ChromaRadiance):
    """PixelDiT."""
