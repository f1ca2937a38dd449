"""unCLIP (Ramesh et al. 2022): CLIP vectors of pictures, with noise, as the vector conditioning."""

from __future__ import annotations

import math

import torch

NOISE_LEVELS = 1000
SEED_OFFSET = -10  # the noise of vectors is another than that of latents with the same seed


def cosine_alphas(levels: int = NOISE_LEVELS) -> torch.Tensor:
    """What is left of the power of the signal at each level (Nichol & Dhariwal 2021)."""
    times = torch.arange(levels + 1, dtype=torch.float64) / levels
    left = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
    losses = (1 - left[1:] / left[:-1]).clamp(max=0.999)
    return (1 - losses).cumprod(0).float()


class NoiseAugmentation(torch.nn.Module):
    """Adds noise to a picture's vector and tells the network how much."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        for name, tensor in (
            ("alphas", cosine_alphas()), ("data_mean", torch.zeros(1, width)),
            ("data_std", torch.ones(1, width)),
        ):  # fmt: skip
            self.register_buffer(name, tensor, persistent=False)

    def set_statistics(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Of the vectors that the model was trained with; without them vectors stay as they are."""
        self.data_mean, self.data_std = mean.float().reshape(1, -1), deviation.float().reshape(1, -1)

    def noised(self, vector: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
        """(1, 2 * width): the vector (1, width) with noise of `amount` in 0..1, and the embedded level."""
        from diffusers.models.embeddings import get_timestep_embedding

        level = round((NOISE_LEVELS - 1) * amount)
        mean, deviation = self.data_mean.to(vector.device), self.data_std.to(vector.device)
        scaled = (vector - mean) / deviation
        noise = torch.randn(scaled.shape, generator=generator).to(scaled)
        alpha = self.alphas[level].to(scaled)
        mixed = alpha.sqrt() * scaled + (1 - alpha).sqrt() * noise
        embedded = get_timestep_embedding(
            torch.tensor([level]), self.width, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        return torch.cat([mixed * deviation + mean, embedded.to(mixed)], dim=1)

    def vector_conditioning(self, pictures: list[dict], seed: int, merge_amount: float, device):
        """`y` (1, 2 * width) for entries of `clip_vision_output`, `strength` and `noise_augmentation`.

        Several pictures are summed, and the sum gets noise of `merge_amount`.

        Raises:
            ValueError: a picture was encoded by a model of another width.
        """
        parts = []
        generator = torch.Generator()
        for entry in pictures:
            for vector in entry["clip_vision_output"].image_embeds:
                if vector.shape[-1] != self.width:
                    raise ValueError(
                        f"This model takes pictures as {self.width} numbers, this one was encoded as "
                        f"{vector.shape[-1]}. Encode it with the CLIP vision model that it is for: that in "
                        "the same checkpoint (unCLIPCheckpointLoader), for SDXL ViT-bigG."
                    )
                generator.manual_seed(seed + SEED_OFFSET)
                vector = vector.to(device).float().reshape(1, -1)
                parts.append(self.noised(vector, entry["noise_augmentation"], generator) * entry["strength"])
        if len(parts) == 1:
            return parts[0]
        return self.noised(sum(parts)[:, : self.width], merge_amount, generator)


class CLIPEmbeddingNoiseAugmentation(NoiseAugmentation):
    """The same under the name and with the call that node packs know."""

    def __init__(self, *args, clip_stats_path=None, timestep_dim=256, noise_schedule_config=None, **kwargs):
        super().__init__(timestep_dim)

    def forward(self, x, noise_level=None, seed=None):
        """(vectors (B, width) with noise, embedded levels (B, width)); without `noise_level` random ones."""
        from diffusers.models.embeddings import get_timestep_embedding

        generator = None if seed is None else torch.Generator().manual_seed(seed)
        if noise_level is None:
            noise_level = torch.randint(0, NOISE_LEVELS, (len(x),), generator=generator)
        levels = noise_level.cpu().long()
        mean, deviation = self.data_mean.to(x.device), self.data_std.to(x.device)
        noise = torch.randn(x.shape, generator=generator).to(x)
        alphas = self.alphas.cpu()[levels].to(x).unsqueeze(1)
        mixed = alphas.sqrt() * ((x - mean) / deviation) + (1 - alphas).sqrt() * noise
        embedded = get_timestep_embedding(levels, self.width, flip_sin_to_cos=True, downscale_freq_shift=0)
        return mixed * deviation + mean, embedded.to(x)
