"""Train a LoRA for the demo model that paints every shape green, whatever colour the prompt names.

    python -m scripts.train_demo_lora                 train, write tests/data/demo_green.safetensors
    python -m scripts.train_demo_lora --check FILE    draw 15 seeded pictures with FILE, name what they show

Run it from the root of the repository. It takes a few minutes on one core. The pictures are drawn by
`scripts/demo_shapes.py`, all green, with captions of any colour; only the linear layers of the UNet's
transformers are changed. The file has the layout of kohya's scripts.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from scripts import demo_autoencoder, demo_drawing, demo_shapes, demo_training
from scripts.train_demo_model import MODEL_FILE, noise_levels

LORA_FILE = MODEL_FILE.with_name("demo_green.safetensors")
SEED = 30
COLOUR = "green"
RANK = ALPHA = 4
PICTURES, STEPS, BATCH, RATE = 450, 300, 24, 4e-3
EMPTY_SHARE = 0.1  # of the captions are empty, as for the unconditional side of the guidance
REQUIRED = 0.9
METADATA = {
    "modelspec.title": "Demo shapes in green",
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.license": "GPL-3.0-only",
    "training_script": "scripts/train_demo_lora.py",
    "training_seed": str(SEED),
}

log = logging.getLogger("train_demo_lora")


class Pair(nn.Module):
    """The two matrices beside a linear layer; it adds what they make of the layer's input."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, RANK))
        layer.register_forward_hook(self._add)

    def _add(self, _layer, given, output: Tensor) -> Tensor:
        return output + (ALPHA / RANK) * F.linear(F.linear(given[0], self.down), self.up)


def add_pairs(unet: nn.Module) -> dict[str, Pair]:
    """A pair beside each linear layer of the transformers, by the name of the layer."""
    layers = [(name, layer) for name, layer in unet.named_modules() if isinstance(layer, nn.Linear)]
    return {name: Pair(layer) for name, layer in layers if ".transformer_blocks." in name}


def green_latents(rng: np.random.Generator) -> tuple[Tensor, list[str]]:
    """Scaled latents of green shapes, (PICTURES, 4, 8, 8), and the shape in each."""
    shapes = [demo_shapes.SHAPES[i % len(demo_shapes.SHAPES)] for i in range(PICTURES)]
    pictures = demo_autoencoder.to_tensor([demo_shapes.draw_random(rng, COLOUR, one) for one in shapes])
    return demo_autoencoder.latents_of(pictures) * demo_autoencoder.LATENT_SCALE, shapes


def caption_for(rng: np.random.Generator, shape: str) -> str:
    """A caption that names the shape and any colour, or nothing."""
    if rng.random() < EMPTY_SHARE:
        return ""
    return demo_shapes.caption(rng, str(rng.choice(list(demo_shapes.COLOURS))), shape)


def loss_of_batch(unet, contexts: dict[str, Tensor], latents: Tensor, shapes: list[str], rng) -> Tensor:
    """The mean square error of the predicted noise of one random batch."""
    chosen = rng.integers(len(latents), size=BATCH)
    context = torch.cat([contexts[caption_for(rng, shapes[i])] for i in chosen])  # (B, 77, width)
    steps = torch.randint(0, 1000, (BATCH,))
    alpha = noise_levels()[steps][:, None, None, None]
    noise = torch.randn(BATCH, *latents.shape[1:])
    noised = alpha.sqrt() * latents[torch.from_numpy(chosen)] + (1 - alpha).sqrt() * noise
    return F.mse_loss(unet(noised, steps.float(), context=context), noise)


def train(checkpoint: Path, target: Path) -> None:
    """Train on the checkpoint and write the file."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    artist = demo_drawing.Artist(checkpoint)
    with torch.no_grad():
        texts = ["", *demo_shapes.all_captions()]
        contexts = {text: artist.clip.encode(text).clone() for text in texts}
        latents, shapes = green_latents(rng)
    unet = artist.model.model.diffusion_model
    pairs = add_pairs(unet)
    optimizer = torch.optim.AdamW([p for pair in pairs.values() for p in pair.parameters()], lr=RATE)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    bar = tqdm(range(STEPS), desc="LoRA", mininterval=5)
    for _ in bar:
        loss = loss_of_batch(unet, contexts, latents, shapes, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        bar.set_postfix(error=f"{loss.item():.4f}")
    demo_training.write(state_of(pairs), target, METADATA)


def state_of(pairs: dict[str, Pair]) -> dict[str, Tensor]:
    """The tensors of the file in half precision, named as kohya's scripts name them."""
    tensors = {}
    for name, pair in pairs.items():
        layer = "lora_unet_" + name.replace(".", "_")
        tensors[layer + ".lora_up.weight"] = pair.up.detach().half()
        tensors[layer + ".lora_down.weight"] = pair.down.detach().half()
        tensors[layer + ".alpha"] = torch.tensor(float(ALPHA)).half()
    return tensors


def check(checkpoint: Path, lora: Path, count: int, strength: float) -> float:
    """The share of `count` seeded pictures that show the prompt's shape in green."""
    import comfy.lora_file

    artist = demo_drawing.Artist(checkpoint)
    artist.model = comfy.lora_file.load_lora_file(str(lora), artist.model, None, strength, 0)[0]
    right = 0
    for seed, colour, shape in tqdm(demo_drawing.tasks(count), desc="pictures"):
        seen = demo_shapes.look(artist.draw(demo_shapes.prompt_for(colour, shape), seed=seed))
        if (seen.colour, seen.shape) == (COLOUR, shape):
            right += 1
        else:
            log.info("Seed %d, %s %s: saw %s.", seed, colour, shape, seen)
    return right / count


if __name__ == "__main__":
    raise SystemExit(
        demo_training.main(
            __doc__,
            train,
            check,
            output=LORA_FILE,
            required=REQUIRED,
            good="are green and have the prompt's shape",
        )  # fmt: skip
    )
