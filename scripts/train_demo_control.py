"""Train a ControlNet for the demo model: a white silhouette on black says where the shape is and which.

    python -m scripts.train_demo_control                 train, write tests/data/demo_silhouette.safetensors
    python -m scripts.train_demo_control --check FILE    draw 15 seeded pictures with FILE, measure them

Run it from the root of the repository. It takes a few minutes on one core. The shapes of the training
pictures are smaller, larger and farther from the middle than any that the demo model was trained on, and half
of the captions name a colour only, so that the silhouette decides the rest. The network begins as a copy of
the UNet's encoder; the UNet stays as it is. The file has the layout of diffusers.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from scripts import demo_autoencoder, demo_drawing, demo_shapes, demo_training
from scripts.train_demo_lora import EMPTY_SHARE
from scripts.train_demo_model import MODEL_FILE, noise_levels

CONTROL_FILE = MODEL_FILE.with_name("demo_silhouette.safetensors")
SEED = 40
HINT_WIDTHS = (8, 16, 32, 64)  # of the layers that take the silhouette in
PICTURES, STEPS, BATCH, RATE = 1500, 900, 24, 2e-3
COLOUR_ONLY_SHARE = 0.5  # of the captions
REQUIRED = 0.9
REQUIRED_OVERLAP = 0.7  # of the drawn shape with the silhouette, intersection over union
METADATA = {
    "modelspec.title": "Demo silhouettes",
    "modelspec.architecture": "stable-diffusion-v1/controlnet",
    "modelspec.license": "GPL-3.0-only",
    "training_script": "scripts/train_demo_control.py",
    "training_seed": str(SEED),
}

log = logging.getLogger("train_demo_control")


def place(rng: np.random.Generator) -> tuple[tuple[float, float], float]:
    """Centre and radius in pixels of a shape that lies inside the picture."""
    radius = rng.uniform(11, 24)
    room = demo_shapes.SIZE / 2 - radius - 2
    x, y = demo_shapes.SIZE / 2 + rng.uniform(-room, room, size=2)
    return (x, y), radius


def silhouette(shape: str, centre: tuple[float, float], radius: float) -> np.ndarray:
    """What the ControlNet is shown, (64, 64, 3): white where the shape is."""
    white, black = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    return demo_shapes.draw(shape, white, centre=centre, radius=radius, background=black)


def build(unet: torch.nn.Module, unet_config: dict) -> torch.nn.Module:
    """A ControlNet with a copy of the weights of the encoder of `unet`; at first it changes nothing."""
    from comfy.families.ldm_controlnet import ControlNetShape, LDMControlNet
    from comfy.families.ldm_unet import UNetShape

    shape = UNetShape(**{field.name: unet_config[field.name] for field in dataclasses.fields(UNetShape)})
    net = LDMControlNet(ControlNetShape(shape, hint_channels=3, hint_widths=HINT_WIDTHS))
    missing = net.load_state_dict(unet.state_dict(), strict=False).missing_keys
    assert all(key.startswith("controlnet_") for key in missing), missing
    return net.float().train().requires_grad_(True)


def training_data(rng: np.random.Generator) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    """Scaled latents (PICTURES, 4, 8, 8), silhouettes (PICTURES, 3, 64, 64), and what is in each picture."""
    pictures, hints, kinds = [], [], []
    for _ in tqdm(range(PICTURES), desc="drawing", mininterval=5):
        colour, shape = demo_shapes.random_kind(rng)
        centre, radius = place(rng)
        rgb = demo_shapes.COLOURS[colour]
        pictures.append(demo_shapes.draw(shape, rgb, centre=centre, radius=radius))
        hints.append(silhouette(shape, centre, radius))
        kinds.append((colour, shape))
    latents = demo_autoencoder.latents_of(demo_autoencoder.to_tensor(pictures))
    shown = torch.from_numpy(np.stack(hints)).float().movedim(-1, 1)
    return latents * demo_autoencoder.LATENT_SCALE, shown, kinds


def caption_for(rng: np.random.Generator, colour: str, shape: str) -> str:
    """A caption of both, of the colour only, or nothing."""
    if rng.random() < EMPTY_SHARE:
        return ""
    if rng.random() < COLOUR_ONLY_SHARE:
        return f"a {colour} shape"
    return demo_shapes.caption(rng, colour, shape)


def train(checkpoint: Path, target: Path) -> None:
    """Train on the checkpoint and write the file."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    artist = demo_drawing.Artist(checkpoint)
    with torch.no_grad():
        contexts = {text: artist.clip.encode(text).clone() for text in ["", *demo_shapes.all_captions()]}
        latents, hints, kinds = training_data(rng)
    unet = artist.model.model.diffusion_model
    net = build(unet, artist.model.model.model_config.unet_config)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    bar = tqdm(range(STEPS), desc="ControlNet", mininterval=5)
    for _ in bar:
        chosen = rng.integers(PICTURES, size=BATCH)
        context = torch.cat([contexts[caption_for(rng, *kinds[i])] for i in chosen])  # (B, 77, width)
        loss = loss_of_batch(unet, net, latents[chosen], hints[chosen], context)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        rates.step()
        bar.set_postfix(error=f"{loss.item():.4f}")
    tensors = {key: tensor.detach().half().contiguous() for key, tensor in net.state_dict().items()}
    demo_training.write(tensors, target, METADATA)


def loss_of_batch(unet, net, latents: Tensor, hints: Tensor, context: Tensor) -> Tensor:
    """The mean square error of the predicted noise of one random batch."""
    steps = torch.randint(0, 1000, (len(latents),))
    alpha = noise_levels()[steps][:, None, None, None]
    noise = torch.randn_like(latents)
    noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    control = net(noised, hints, steps.float(), context)
    return F.mse_loss(unet(noised, steps.float(), context=context, control=control), noise)


class ControlledArtist(demo_drawing.Artist):
    """Draws what a prompt says where a silhouette says."""

    def __init__(self, checkpoint: Path, control: Path) -> None:
        import comfy.controlnet

        super().__init__(checkpoint)
        self.control = comfy.controlnet.load_controlnet(str(control))

    def draw_at(self, prompt: str, hint: np.ndarray, *, seed: int, strength: float = 1.0) -> np.ndarray:
        """One picture, (64, 64, 3) in 0..1, controlled by a silhouette of the same size."""
        import nodes

        picture = torch.from_numpy(hint).float()[None]
        with torch.inference_mode():
            sides = [nodes.CLIPTextEncode().encode(self.clip, text)[0] for text in (prompt, "")]
            apply = nodes.ControlNetApplyAdvanced().apply_controlnet
            sides = apply(*sides, self.control, picture, strength, 0.0, 1.0)
            return self.draw_from(*sides, seed=seed)


def overlap(picture: np.ndarray, hint: np.ndarray) -> float:
    """Intersection over union of what a picture shows and a silhouette."""
    seen, wanted = demo_shapes.largest_component(demo_shapes.front_of(picture)), hint[..., 0] > 0.5
    return float((seen & wanted).sum() / (seen | wanted).sum())


def check(checkpoint: Path, control: Path, count: int, strength: float) -> float:
    """The share of `count` seeded pictures with the prompt's colour and the silhouette's shape and place."""
    artist = ControlledArtist(checkpoint, control)
    right = 0
    for seed, colour, shape in tqdm(demo_drawing.tasks(count), desc="pictures"):
        hint = silhouette(shape, *place(np.random.default_rng(seed)))
        picture = artist.draw_at(f"a {colour} shape", hint, seed=seed, strength=strength)
        seen, share = demo_shapes.look(picture), overlap(picture, hint)
        if seen.colour == colour and share >= REQUIRED_OVERLAP:
            right += 1
        else:
            log.info("Seed %d, %s %s: saw %s, overlap %.2f.", seed, colour, shape, seen, share)
    return right / count


if __name__ == "__main__":
    raise SystemExit(
        demo_training.main(
            __doc__,
            train,
            check,
            output=CONTROL_FILE,
            required=REQUIRED,
            good="have the prompt's colour and the silhouette's shape and place",
        )  # fmt: skip
    )
