"""How the latents of a model family relate to what its VAE makes, and how to preview them.

`latent_rgb_factors` are the published linear approximations: one row of R, G, B per latent channel.
"""


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


class SDXL_Playground_2_5(LatentFormat):  # noqa: N801 - the name that node packs use
    """Playground v2.5: normalised by channel."""

    scale_factor = 0.5
    means = (-1.6574, 1.886, -1.383, 2.5155)
    deviations = (8.4927, 5.9022, 6.5498, 5.2299)

    def process_in(self, latent):
        """From the VAE's latents to the model's."""
        mean, deviation = self._statistics(latent)
        return (latent - mean) * self.scale_factor / deviation

    def process_out(self, latent):
        """From the model's latents to the VAE's."""
        mean, deviation = self._statistics(latent)
        return latent * deviation / self.scale_factor + mean

    def _statistics(self, latent):
        return (latent.new_tensor(numbers).reshape(1, -1, 1, 1) for numbers in (self.means, self.deviations))
