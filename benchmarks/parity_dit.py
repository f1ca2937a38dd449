"""Transformers (Flux.1, Z-Image) beside upstream ComfyUI on the same file, fp32, on the CPU.

    python benchmarks/parity_dit.py --upstream ../ComfyUI --upstream-python ../ComfyUI/venv/bin/python

Upstream knows these families by their full widths, so the random file has the full width and few blocks
(`--depth`). One worker process per program loads the file and runs the same calls: the network at several
noise levels and at sides that are no multiples of a patch, prompts of unlike lengths, a LoRA on fused
layers, pictures as reference (Kontext) and with a mask (Fill), the samplers, and the autoencoder of 16
channels. Conditionings are random: text encoders at full size do not fit beside it (they are compared with
transformers in the tests).
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path

import parity_upstream

LIMIT = 1e-3
FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072,
    "num_heads": 24, "axes_dim": (16, 56, 56), "guidance_embed": True,
}  # fmt: skip
Z_IMAGE = {
    "in_channels": 16, "dim": 3840, "cap_feat_dim": 2560, "n_heads": 30, "n_refiner_layers": 2,
    "axes_dims": [32, 48, 48], "rope_theta": 256.0, "time_scale": 1000.0,
}  # fmt: skip
# Per family: class of the network, hyper-parameters, width of the context, pooled width.
FAMILIES = {
    "flux": ("flux_model:FluxModel", FLUX, 4096, 768),
    "flux-schnell": ("flux_model:FluxModel", {**FLUX, "guidance_embed": False}, 4096, 768),
    "flux-fill": ("flux_model:FluxModel", {**FLUX, "in_channels": 96}, 4096, 768),
    "z-image": ("z_image:ZImageNet", Z_IMAGE, 2560, 0),
}
SAMPLERS = (("euler", "simple"), ("dpmpp_2m", "beta"), ("res_multistep", "simple"))


# --- the files ---


def write_in_own_process(path: Path, **kind) -> None:
    """`write_file` in a process that gives its memory back."""
    child = multiprocessing.get_context("spawn").Process(target=write_file, args=(path,), kwargs=kind)
    child.start()
    child.join()
    if child.exitcode != 0:
        raise SystemExit("The file could not be written: see above.")


def write_file(path: Path, *, family: str, depth: int, dtype_name: str = "float32") -> None:
    """A diffusion model alone, with `depth` blocks of each kind (of Flux's single ones twice as many)."""
    import safetensors.torch
    import torch

    sys.path.insert(0, str(parity_upstream.HERE))
    torch.manual_seed(0)
    network, numbers, _, _ = FAMILIES[family]
    module, name = network.split(":")
    make = getattr(importlib.import_module(f"comfy.families.{module}"), name)
    depths = {"depth": depth, "depth_single_blocks": 2 * depth} if "flux" in family else {"n_layers": depth}
    net = make.empty(**numbers, **depths)
    shapes = {key: tuple(t.shape) for key, t in net.checkpoint_weights(net.state_dict()).items()}
    weights = {key: _random(shape, torch) for key, shape in shapes.items()}
    kept = {key: tensor.to(getattr(torch, dtype_name)) for key, tensor in weights.items()}
    safetensors.torch.save_file(kept, path)


def _random(shape: tuple[int, ...], torch):
    """Scaled so that what passes through a layer keeps its size; vectors are biases, or scales near 1."""
    return torch.randn(shape) * (shape[1] ** -0.5 if len(shape) > 1 else 0.1)


def write_autoencoder(path: Path) -> None:
    """The autoencoder of Flux at full size."""
    import safetensors.torch
    import torch

    sys.path.insert(0, str(parity_upstream.HERE))
    from comfy.families import ldm_vae
    from comfy.families.base import build_empty

    torch.manual_seed(1)
    shape = ldm_vae.VAEShape(
        channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, has_quant_conv=False
    )
    vae = build_empty(lambda: ldm_vae.LDMVAE(shape))
    weights = {}
    for key, tensor in ldm_vae.checkpoint_weights(vae.state_dict()).items():
        fan_in = tensor[0].numel()
        is_scale = tensor.ndim == 1 and key.endswith("weight")
        spread = fan_in**-0.5 if tensor.ndim > 1 else 0.1
        weights[key] = float(is_scale) + torch.randn(tensor.shape) * spread
    safetensors.torch.save_file(weights, path)


# --- the worker: the same calls for both programs ---


def worker(file: str, vae_file: str, out: str, family: str, size: int, steps: int) -> None:
    """Run all calls with the `comfy` that is first on the path, and save every result."""
    sys.argv = [sys.argv[0], "--cpu"]
    parity_upstream.prepare_upstream()
    import safetensors.torch
    import torch

    import comfy.sd
    import comfy.utils

    torch.set_num_threads(2)
    results: dict = {}
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(file)
        conds = conditionings(FAMILIES[family], torch)
        evaluate(results, model, conds, size, torch)
        patched = comfy.sd.load_lora_for_models(model, None, random_lora(model, family, torch), 0.8, 0)[0]
        evaluate(results, patched, conds[:1], size, torch, label=", LoRA")
        sample(results, model, conds, size, steps, family, torch)
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(vae_file))
        image = torch.rand(1, size, size + 16, 3, generator=torch.Generator().manual_seed(5))
        results["vae/encode"] = vae.encode(image)
        results["vae/decode"] = vae.decode(results["vae/encode"].float())
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in results.items()}, out)


def conditionings(row, torch) -> list[list]:
    """Two prompts of unlike lengths, as CONDITIONING: random tokens, pooled vector, a mask of ones."""
    _, _, width, pooled_width = row
    generator = torch.Generator().manual_seed(3)
    made = []
    for tokens in (40, 23):
        values = {}
        if pooled_width:
            values["pooled_output"] = torch.randn(1, pooled_width, generator=generator)
        else:
            values["attention_mask"] = torch.ones(1, tokens, dtype=torch.long)
        made.append([[torch.randn(1, tokens, width, generator=generator), values]])
    return made


def evaluate(results, model, conds, size, torch, label="") -> None:
    """The network's prediction at three noise levels, with sides that are no multiples of a patch."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model], force_patch_weights=True)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, size // 8 + 1, size // 8, generator=generator)
    for number, ((tokens, values),) in enumerate(conds):
        given = {"cross_attn": tokens, **values, "noise": x, "device": torch.device("cpu")}
        extra = model.model.extra_conds(**given)
        arguments = {name: cond.cond for name, cond in extra.items()}
        for sigma in (1.0, 0.6, 0.05):
            out = model.model.apply_model(x, torch.full((1,), sigma), **arguments)
            results[f"network/prompt {number}, sigma {sigma}{label}"] = out


def random_lora(model, family: str, torch) -> dict:
    """In kohya's layout, on layers that files keep fused, on a modulation and on the last layer."""
    layers = {"img_attn_qkv": (9216, 3072), "img_mod_lin": (18432, 3072)}
    names = {f"lora_unet_double_blocks_0_{name}": shape for name, shape in layers.items()}
    names["lora_unet_single_blocks_0_linear1"] = (21504, 3072)
    if "flux" not in family:
        names = {"lora_unet_layers_0_attention_qkv": (11520, 3840),
                 "lora_unet_layers_0_feed_forward_w1": (10240, 3840)}  # fmt: skip
    generator = torch.Generator().manual_seed(4)
    lora = {}
    for name, (rows, columns) in names.items():
        lora[f"{name}.lora_up.weight"] = torch.randn(rows, 4, generator=generator) * 0.2
        lora[f"{name}.lora_down.weight"] = torch.randn(4, columns, generator=generator) * 0.2
        lora[f"{name}.alpha"] = torch.tensor(2.0)
    return lora


def sample(results, model, conds, size, steps, family: str, torch) -> None:
    """Latents by several samplers, with guidance of two sides, and from reference pictures."""
    import comfy.sample

    generator = torch.Generator().manual_seed(2)
    positive, negative = conds
    empty = torch.zeros(1, 16, size // 8, size // 8)
    picture = torch.randn(1, 16, size // 8, size // 8, generator=generator)
    if family == "flux-fill":
        mask = torch.zeros(1, 1, size, size)
        mask[..., : size // 2] = 1.0
        values = {"concat_latent_image": picture, "concat_mask": mask}
        positive, negative = ([[tokens, {**told, **values}]] for ((tokens, told),) in conds)

    def run(name: str, sampler: str, scheduler: str, cfg: float, one, start, **more) -> None:
        noise = comfy.sample.prepare_noise(start, 42)
        results[f"latent/{name}"] = comfy.sample.sample(
            model,
            noise,
            steps,
            cfg,
            sampler,
            scheduler,
            one,
            negative,
            start,
            disable_pbar=True,
            seed=42,
            **more,
        )

    for sampler, scheduler in SAMPLERS:
        run(f"{sampler}, {scheduler}", sampler, scheduler, 1.0, positive, empty)
    run("euler, guidance of two prompts", "euler", "simple", 3.0, positive, empty)
    run("euler, denoise 0.6", "euler", "simple", 1.0, positive, picture, denoise=0.6)
    if family == "flux":
        references = [[tokens, {**told, "reference_latents": [picture]}] for tokens, told in positive]
        run("euler, reference picture", "euler", "simple", 1.0, references, empty)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upstream", help="checkout of upstream ComfyUI")
    parser.add_argument(
        "--upstream-python", default=sys.executable, help="python with upstream's requirements"
    )
    parser.add_argument("--stubs", help="folder put on upstream's path as well")
    parser.add_argument("--family", default="flux", choices=FAMILIES)
    parser.add_argument("--depth", type=int, default=1, help="blocks of each kind")
    parser.add_argument("--size", type=int, default=64, help="pixels of the pictures")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker, options.family, options.size, options.steps)
        return 0
    with tempfile.TemporaryDirectory() as name:
        return compare(options, Path(name))


def compare(options, folder: Path) -> int:
    file, vae_file = folder / f"random-{options.family}.safetensors", folder / "random-ae.safetensors"
    write_in_own_process(file, family=options.family, depth=options.depth)
    write_autoencoder(vae_file)
    print(f"{file.name}: {file.stat().st_size / 1e9:.2f} GB")
    results = {}
    for program, (python, root, env) in parity_upstream.programs(options).items():
        results[program] = folder / f"{program}.safetensors"
        command = [python, str(Path(__file__).resolve()), "--family", options.family, "--size",
                   str(options.size), "--steps", str(options.steps), "--worker", str(file), str(vae_file),
                   str(results[program])]  # fmt: skip
        subprocess.run(command, env=env, cwd=root, check=True)
    print(f"{'':<44}{'largest difference':>20}{'relative':>12}{'std of values':>16}")
    worst = 0.0
    for name, difference, relative, spread in parity_upstream.compare(results["ours"], results["upstream"]):
        print(f"{name:<44}{difference:>20.2e}{relative:>12.2e}{spread:>16.3f}")
        worst = max(worst, relative)
    print(f"largest relative difference {worst:.1e}, bound {LIMIT:.0e}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
