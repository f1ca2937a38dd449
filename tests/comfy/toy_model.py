"""A diffusion model small enough for arithmetic: a real ModelPatcher around a network of two matrices."""

import torch

import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher


class ToyNetwork(torch.nn.Module):
    """Mixes channels, and adds what the prompt says; remembers the size of each batch it has seen."""

    dtype = torch.float32

    def __init__(self, device=None, operations=None, **config):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.nn.Parameter(torch.randn(4, 4, generator=generator) * 0.3)
        self.read = torch.nn.Parameter(torch.randn(8, 4, generator=generator))
        self.calls = []

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **extra):
        self.calls.append(
            {"batch": x.shape[0], "t": float(timesteps[0]), "shape": tuple(x.shape), **transformer_options}
        )
        said = (context.mean(1) @ self.read)[:, :, None, None]
        return torch.tanh(torch.einsum("bchw,cd->bdhw", x, self.mix) + said) + 0.3 * x


class _Config:
    unet_config = {"in_channels": 4}
    sampling_settings: dict = {}
    manual_cast_dtype = None
    custom_operations = object()
    memory_usage_factor = 1.0

    def __init__(self):
        self.latent_format = comfy.latent_formats.SD15()


def toy_model(load_device=torch.device("cpu")):
    """A MODEL that computes on a device and rests on the CPU."""
    device = torch.device("cpu")
    model = comfy.model_base.BaseModel(_Config(), device=device, unet_model=ToyNetwork)
    return comfy.model_patcher.ModelPatcher(model, load_device, device)


def tokens(seed, count=7, batch=1):
    """What a text encoder would give for a prompt."""
    return torch.randn(batch, count, 8, generator=torch.Generator().manual_seed(seed))


def prompt(seed, count=7, **extras):
    """A CONDITIONING with one entry."""
    return [[tokens(seed, count), extras]]


def latents(seed, batch=2, rows=16, columns=24):
    """Latents with content."""
    return torch.randn(batch, 4, rows, columns, generator=torch.Generator().manual_seed(seed))
