"""Train the demo model: a real Stable Diffusion 1.x checkpoint of a few MB that draws coloured shapes.

    python -m scripts.train_demo_model                 train, write tests/data/demo_shapes.safetensors
    python -m scripts.train_demo_model --check FILE    draw 40 seeded pictures with FILE, name what they show

Run it from the root of the repository. Training has two stages, each from a fixed seed: the autoencoder on
drawn pictures, then the UNet together with the text encoder on their latents. A finished stage is kept in
--work, so that a stopped run goes on with the next one. Everything is drawn by `scripts/demo_shapes.py`;
nothing is downloaded.
"""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel

from comfy.families import ldm_unet, ldm_vae
from comfy.sd1_clip import SD1Tokenizer
from scripts import demo_autoencoder, demo_drawing, demo_shapes

ROOT = Path(__file__).resolve().parent.parent
MODEL_FILE = ROOT / "tests" / "data" / "demo_shapes.safetensors"
WORK = ROOT / "temp" / "demo_model"

SEED = 20
END_OF_TEXT = 49407
RESNETS_PER_BLOCK = 1
UNET_WIDTHS = (64, 64)
TEXT_WIDTH = 32

PICTURES, UNET_STEPS, UNET_BATCH, UNET_RATE = 4500, 1500, 32, 1.5e-3
UNCONDITIONAL_SHARE = 0.1
SNR_LIMIT = 5.0
EMA_DECAY = 0.99

REQUIRED = 0.9  # share of pictures that must be right
METADATA = {
    "modelspec.title": "Demo shapes",
    "modelspec.architecture": "stable-diffusion-v1",
    "modelspec.license": "GPL-3.0-only",
    "modelspec.description": "Draws red, green, blue, yellow and purple circles, squares, triangles.",
    "training_script": "scripts/train_demo_model.py",
    "training_seed": str(SEED),
}

log = logging.getLogger("train_demo_model")


def build_unet() -> UNet2DConditionModel:
    """A UNet like Stable Diffusion 1.5's: attention with 8 heads on all levels but the deepest."""
    levels = len(UNET_WIDTHS)
    return UNet2DConditionModel(
        sample_size=demo_shapes.SIZE // 8,
        block_out_channels=UNET_WIDTHS,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        layers_per_block=RESNETS_PER_BLOCK,
        attention_head_dim=8,  # diffusers' old name: it is the number of heads
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=32,
    )


def build_text_encoder() -> CLIPTextModel:
    """CLIP's text model, narrow: two layers, the full table of tokens, zero until a token is trained."""
    config = CLIPTextConfig(
        vocab_size=END_OF_TEXT + 1,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=max(1, TEXT_WIDTH // 64),
        hidden_act="quick_gelu",
        bos_token_id=END_OF_TEXT - 1,
        eos_token_id=END_OF_TEXT,
        pad_token_id=END_OF_TEXT,
    )
    return CLIPTextModel(config)


def token_rows(texts: list[str]) -> Tensor:
    """Token numbers of texts as SD1 pads them, (len(texts), 77)."""
    tokenizer = SD1Tokenizer()
    rows = (tokenizer.tokenize_with_weights(text)["l"][0] for text in texts)
    return torch.tensor([[number for number, _weight in row] for row in rows])


class Average:
    """An exponential moving average of a module's weights; short at first, so that the start is forgotten."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.steps = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights of one more step."""
        self.steps += 1
        decay = min(EMA_DECAY, self.steps / (self.steps + 10))
        for mean, value in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


def noise_levels() -> Tensor:
    """Cumulative alphas of Stable Diffusion's 1000 steps ("scaled linear" betas), (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


class Batches:
    """Random batches of captioned, noised latents for the UNet."""

    def __init__(self, latents: Tensor, kinds: list[tuple[str, str]], seed: int) -> None:
        self.latents = latents * demo_autoencoder.LATENT_SCALE
        self.kinds = kinds
        self.rng = np.random.default_rng(seed)
        self.texts = ["", *demo_shapes.all_captions()]
        self.tokens = token_rows(self.texts)  # (texts, 77)
        self.alphas = noise_levels()

    def text_numbers(self, chosen: np.ndarray) -> Tensor:
        """For each chosen picture the number of a caption, or 0, the empty text."""
        captions = [demo_shapes.caption(self.rng, *self.kinds[i]) for i in chosen]
        dropped = self.rng.random(len(chosen)) < UNCONDITIONAL_SHARE
        return torch.tensor([0 if d else self.texts.index(c) for c, d in zip(captions, dropped, strict=True)])

    def loss(self, model: nn.ModuleDict) -> tuple[Tensor, float]:
        """The loss of one batch, and the plain mean square error of the predicted noise.

        The loss is weighted by min(SNR, limit) / SNR (Hang et al. 2023, arXiv:2303.09556).
        """
        chosen = self.rng.integers(len(self.latents), size=UNET_BATCH)
        used, places = self.text_numbers(chosen).unique(return_inverse=True)
        context = model["text"](self.tokens[used]).last_hidden_state[places]  # (B, 77, TEXT_WIDTH)
        steps = torch.randint(0, 1000, (UNET_BATCH,))
        alpha = self.alphas[steps]
        signal, spread = alpha.sqrt()[:, None, None, None], (1 - alpha).sqrt()[:, None, None, None]
        clean = self.latents[torch.from_numpy(chosen)]  # (B, 4, 8, 8)
        noise = torch.randn_like(clean)
        predicted = model["unet"](signal * clean + spread * noise, steps, context).sample
        errors = F.mse_loss(predicted, noise, reduction="none").mean(dim=(1, 2, 3))
        snr = alpha / (1 - alpha)
        return (errors * snr.clamp(max=SNR_LIMIT) / snr).mean(), errors.mean().item()


def train_unet(latents: Tensor, kinds: list[tuple[str, str]]) -> nn.ModuleDict:
    """The UNet ("unet") and the text encoder ("text"), trained together to predict noise."""
    torch.manual_seed(SEED + 2)
    batches = Batches(latents, kinds, SEED + 2)
    model = nn.ModuleDict({"unet": build_unet(), "text": build_text_encoder()})
    model["unet"].set_attn_processor(AttnProcessor())  # for so narrow heads twice as fast as the fused one
    table = model["text"].get_input_embeddings().weight
    with torch.no_grad():  # rows of tokens that no caption has stay zero
        table *= torch.zeros(len(table), 1).index_fill_(0, batches.tokens.unique(), 1.0)
    others = [p for p in model.parameters() if p is not table]
    groups = [{"params": others, "weight_decay": 1e-3}, {"params": [table], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=UNET_RATE)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, UNET_RATE, total_steps=UNET_STEPS, pct_start=0.05)
    average = Average(model)
    recent = 1.0
    bar = tqdm(range(UNET_STEPS), desc="UNet and text encoder", mininterval=5)
    for _ in bar:
        loss, error = batches.loss(model)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        average.update(model)
        recent += 0.02 * (error - recent)
        bar.set_postfix(error=f"{recent:.4f}")
    return average.module


def drawn_latents() -> tuple[Tensor, list[tuple[str, str]]]:
    """The latents that the UNet learns from, (PICTURES, 4, 8, 8), and what each picture shows."""
    rng = np.random.default_rng(SEED + 1)
    kinds = [demo_shapes.KINDS[i % len(demo_shapes.KINDS)] for i in range(PICTURES)]
    pictures = demo_autoencoder.to_tensor([demo_shapes.draw_random(rng, *kind) for kind in kinds])
    return demo_autoencoder.latents_of(pictures), kinds


def stage(file: Path, train: Callable[[], nn.Module]) -> nn.Module:
    """A trained module: read where the stage is finished, else trained now and kept."""
    if file.exists():
        log.info("Taking the finished stage %s.", file)
        return torch.load(file, weights_only=False)
    trained = train()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(trained, file)
    return trained


def state_of_checkpoint(unet: nn.Module, text: nn.Module, vae: nn.Module) -> dict[str, Tensor]:
    """All weights in half precision, named as in a single-file checkpoint of Stable Diffusion 1.x."""
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": UNET_WIDTHS[0],
        "channel_mult": tuple(width // UNET_WIDTHS[0] for width in UNET_WIDTHS),
        "num_res_blocks": (RESNETS_PER_BLOCK,) * len(UNET_WIDTHS),
        "transformer_depth": (1,) * (len(UNET_WIDTHS) - 1) + (0,),
        "transformer_depth_middle": 1,
        "context_dim": TEXT_WIDTH,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    }
    weights = unet.state_dict()
    names = ldm_unet.checkpoint_names(weights, config)
    whole = {f"model.diffusion_model.{names[key]}": tensor for key, tensor in weights.items()}
    for key, tensor in ldm_vae.checkpoint_weights(vae.state_dict()).items():
        whole[f"first_stage_model.{key}"] = tensor
    for key, tensor in text.state_dict().items():
        if not key.endswith("position_ids"):
            whole["cond_stage_model.transformer.text_model." + key.removeprefix("text_model.")] = tensor
    return {key: tensor.half().contiguous() for key, tensor in whole.items()}


def train(work: Path, target: Path) -> None:
    """Both stages, then the checkpoint file."""
    vae = stage(work / "autoencoder.pt", lambda: demo_autoencoder.train(SEED))
    trained = stage(work / "unet_and_text.pt", lambda: train_unet(*drawn_latents()))
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(state_of_checkpoint(trained["unet"], trained["text"], vae), target, metadata=METADATA)
    target.chmod(0o644)  # safetensors writes files that only their owner can read
    log.info("Wrote %s, %.1f MB.", target, target.stat().st_size / 1e6)


def check(file: Path, count: int, sheet: Path | None) -> float:
    """The share of `count` seeded pictures that show what their prompt says; a sheet of all, if asked for."""
    artist = demo_drawing.Artist(file)
    pictures, right = [], 0
    for seed, colour, shape in tqdm(demo_drawing.tasks(count), desc="pictures"):
        picture = artist.draw(demo_shapes.prompt_for(colour, shape), seed=seed)
        seen = demo_shapes.look(picture)
        if (seen.colour, seen.shape) == (colour, shape):
            right += 1
        else:
            log.info("Seed %d, %s %s: saw %s.", seed, colour, shape, seen)
        pictures.append(picture)
    if sheet:
        demo_drawing.save_sheet(pictures, sheet)
    return right / count


def main() -> int:
    """Train and check, or check only; the exit status says whether enough pictures were right."""
    keep_lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=keep_lines)
    parser.add_argument("--check", type=Path, metavar="FILE", help="do not train; check this checkpoint")
    parser.add_argument("--output", type=Path, default=MODEL_FILE, help="the file to write")
    parser.add_argument("--work", type=Path, default=WORK, help="where stages are kept")
    parser.add_argument("--count", type=int, default=40, help="pictures to check")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write all checked pictures into one")
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for training")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    if args.check is None:
        train(args.work, args.output)
    share = check(args.check or args.output, args.count, args.sheet)
    log.info("%.1f %% of %d pictures show what the prompt says.", 100 * share, args.count)
    return 0 if share >= REQUIRED else 1


if __name__ == "__main__":
    raise SystemExit(main())
