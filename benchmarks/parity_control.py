"""How far are our control models from upstream ComfyUI's, on the same files and calls? fp32, on the CPU.

    python benchmarks/parity_control.py --upstream ../ComfyUI --upstream-python ../ComfyUI/venv/bin/python

Files of random weights are written to a temporary folder: a UNet of SD1.5 with half of its levels, one with
all levels and little attention, one of SDXL with few transformer layers, a Flux.1 of full width with three
blocks, and for each of them control models in the layouts that users have. Then one process per program and
family loads them and runs the same calls (nodes that apply, `comfy.sample.sample`), and the latents are
compared. Needs 8 GB of disk and of memory.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import parity_upstream
from parity_upstream import HERE, SD1_UNET, SDXL_UNET

BOUND = 1e-3
PLAIN = "no control"
LAYERS = (16, 32, 96, 256)  # widths of the layers that take the picture in
SD1_BASE = {**SD1_UNET, **parity_upstream.TWO_LEVELS}
FOUR_LEVELS = {**SD1_UNET, "transformer_depth": (1, 0, 0, 0)}  # with the widths that adapters have
SDXL_BASE = {**SDXL_UNET, "transformer_depth": (0, 1, 2), "transformer_depth_middle": 1}
SDXL_UNION = {**SDXL_UNET, "transformer_depth": (0, 0, 1), "transformer_depth_middle": 1}
RANK = 4
FLUX = {"heads": 24, "head": 128}
HIDDEN = FLUX["heads"] * FLUX["head"]


# --- the worker: the same calls for both programs ---


class Run:
    """A model, and a way to sample it with control models."""

    def __init__(self, folder: Path, family: str, steps: int):
        import comfy.sd
        import nodes

        self.folder, self.steps, self.results = folder, steps, {}
        # Channels of the latent, tokens, their width, width of the pooled prompt.
        if family == "flux":
            self.model = comfy.sd.load_diffusion_model(str(folder / "flux.safetensors"))
            self.size, self.sides_of_latent = (16, 5, 96, 64), (8, 6)
        else:
            path = str(folder / f"{family}.safetensors")
            self.model = comfy.sd.load_checkpoint_guess_config(path, output_vae=False, output_clip=False)[0]
            self.size = (4, 77, 2048, 1280) if family == "sdxl" else (4, 77, 768, 0)
            self.sides_of_latent = (12, 8)
        self.apply = nodes.ControlNetApplyAdvanced().apply_controlnet
        self.older = nodes.ControlNetApply().apply_controlnet
        self.pictures = noise_of(1, 2, 40, 56, 3).sigmoid()

    def words(self, seed: int):
        _, tokens, width, pooled = self.size
        extras = {"pooled_output": noise_of(seed + 50, 1, pooled)} if pooled else {}
        return [[noise_of(seed, 1, tokens, width), extras]]

    def sides(self):
        return self.words(1), self.words(2)

    def load(self, name: str, model=None):
        import comfy.controlnet

        return comfy.controlnet.load_controlnet(str(self.folder / f"{name}.safetensors"), model)

    def sample(self, name: str, positive, negative) -> None:
        import torch

        import comfy.sample

        latent = torch.zeros(2, self.size[0], *self.sides_of_latent)
        noise = comfy.sample.prepare_noise(latent, 42)
        started = time.perf_counter()
        self.results[name] = comfy.sample.sample(
            self.model, noise, self.steps, 3.0, "euler", "simple", positive, negative, latent,
            disable_pbar=True,
        )  # fmt: skip
        print(f"  {name}: {time.perf_counter() - started:.0f} s", flush=True)

    def applied(self, net, strength=0.8, start=0.0, end=1.0, image=None, sides=None, **more):
        image = self.pictures[:1] if image is None else image
        return self.apply(*(sides or self.sides()), net, image, strength, start, end, **more)


def noise_of(seed: int, *shape: int):
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def typed(net, kind: str):
    from comfy_extras.nodes_controlnet import SetUnionControlNetType

    return first_of(SetUnionControlNetType.execute(net, kind))


def first_of(output):
    return getattr(output, "args", getattr(output, "result", output))[0]


def run_sd1(run: Run) -> None:
    net = run.load("controlnet")
    run.sample(PLAIN, *run.sides())
    run.sample("ControlNet, original layout", *run.applied(net))
    run.sample("ControlNet, a picture each, until 0.4", *run.applied(net, end=0.4, image=run.pictures))
    positive = run.older(run.words(1), net, run.pictures[:1], 0.5)[0]
    run.sample("ControlNet, older node", positive, run.words(2))
    run.sample("two ControlNets", *run.applied(net, 0.3, start=0.4, sides=run.applied(net, 0.5)))
    run.sample("ControlNet, from a difference", *run.applied(run.load("difference", run.model), 0.3))


def run_t2i(run: Run) -> None:
    full, net = run.load("adapter"), run.load("t2i-controlnet")
    run.sample(PLAIN, *run.sides())
    run.sample("T2I-Adapter, a picture each, from 0.4", *run.applied(full, start=0.4, image=run.pictures))
    run.sample("T2I-Adapter, diffusers' layout", *run.applied(run.load("adapter-zoo")))
    run.sample("T2I-Adapter, light", *run.applied(run.load("adapter-light")))
    run.sample("T2I-Adapter and ControlNet", *run.applied(net, sides=run.applied(full, 0.5)))


def run_sdxl(run: Run) -> None:
    union, lora, adapter = (run.load(name) for name in ("union", "control-lora", "adapter-xl"))
    run.sample(PLAIN, *run.sides())
    run.sample("union, auto", *run.applied(typed(union, "auto")))
    run.sample("union, tile", *run.applied(typed(union, "tile")))
    run.sample("Control-LoRA", *run.applied(lora))
    run.sample("T2I-Adapter and union", *run.applied(adapter, 0.5, sides=run.applied(union, 0.5)))


def run_flux(run: Run) -> None:
    import comfy.sd
    import comfy.utils
    from comfy_extras.nodes_controlnet import ControlNetInpaintingAliMamaApply

    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(run.folder / "flux-vae.safetensors")))
    run.sample(PLAIN, *run.sides())
    union = run.load("flux-union")
    run.sample("InstantX union, auto", *run.applied(union, vae=vae))
    run.sample("InstantX union, depth", *run.applied(typed(union, "depth"), vae=vae))
    mask = noise_of(3, 1, 40, 56).sigmoid()
    sides = ControlNetInpaintingAliMamaApply.execute(
        *run.sides(), run.load("flux-inpaint"), vae, run.pictures[:1], mask, 0.8, 0.0, 1.0
    )
    run.sample("AliMama inpainting", *getattr(sides, "args", getattr(sides, "result", sides)))
    run.sample("XLabs, a picture each", *run.applied(run.load("flux-xlabs"), image=run.pictures))
    run.sample("MistoLine", *run.applied(run.load("flux-mist")))


RUNS = {"sd1": run_sd1, "t2i": run_t2i, "sdxl": run_sdxl, "flux": run_flux}


def worker(options) -> None:
    """Run the calls of one family and save every result."""
    sys.argv = [sys.argv[0], "--cpu"]
    parity_upstream.prepare_upstream()
    import safetensors.torch
    import torch

    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        run = Run(Path(options.folder), options.families, options.steps)
        RUNS[options.families](run)
    results = {name: found.contiguous() for name, found in run.results.items()}
    safetensors.torch.save_file(results, options.worker)


# --- the files ---


def fill(shapes: dict, *, seed: int, scale: float = 1.0):
    """Half-precision weights of these shapes that keep the size of what passes through."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            values *= scale * values[0].numel() ** -0.5
        else:
            values = 0.1 * values + (name.endswith(("weight", "scale")) and len(shape) == 1)
        weights[name] = values.half()
    return weights


def shapes_in(weights: dict) -> dict:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def write(folder: Path, name: str, weights: dict) -> None:
    import safetensors.torch

    path = folder / f"{name}.safetensors"
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path)
    print(f"{path.name}: {path.stat().st_size / 1e9:.2f} GB", flush=True)


def unet_shapes(config: dict, heads: dict) -> dict:
    from comfy.families import ldm_unet

    unet = ldm_unet.LDMUNet.empty(**config, **heads).state_dict()
    names = ldm_unet.checkpoint_names(unet, config)
    return {f"model.diffusion_model.{names[key]}": tuple(tensor.shape) for key, tensor in unet.items()}


def control_shape(config: dict):
    from comfy.families import ldm_controlnet, ldm_unet

    return ldm_controlnet.ControlNetShape(ldm_unet.UNetShape(**config), 3, LAYERS)


def adapter_shapes(kind: str, layout: str = "original") -> dict:
    from diffusers import T2IAdapter

    from comfy.families.base import build_empty
    from tests.comfy import tiny_control

    widths, layers = ([320, 640, 1280], 4) if kind == "light_adapter" else ([320, 640, 1280, 1280], 2)
    net = build_empty(lambda: T2IAdapter(3, widths, layers, 16 if kind.endswith("xl") else 8, kind))
    return shapes_in(net.state_dict() if layout == "zoo" else tiny_control.original_adapter(net))


def controlnet_shapes(config: dict) -> dict:
    from comfy.families import ldm_controlnet
    from comfy.families.base import build_empty
    from tests.comfy import tiny_control

    net = build_empty(lambda: ldm_controlnet.LDMControlNet(control_shape(config)))
    return shapes_in(tiny_control.original_controlnet(net, "control_model.", config))


def write_sd1(folder: Path) -> None:
    import torch

    write(folder, "sd1", fill(unet_shapes(SD1_BASE, {}), seed=0))
    weights = fill(controlnet_shapes(SD1_BASE), seed=1)
    write(folder, "controlnet", weights)
    difference = {key: tensor * 0.1 for key, tensor in weights.items()}
    write(folder, "difference", {**difference, "difference": torch.zeros(1)})


def write_t2i(folder: Path) -> None:
    write(folder, "t2i", fill(unet_shapes(FOUR_LEVELS, {}), seed=0))
    write(folder, "t2i-controlnet", fill(controlnet_shapes(FOUR_LEVELS), seed=1))
    write(folder, "adapter", fill(adapter_shapes("full_adapter"), seed=2))
    write(folder, "adapter-zoo", fill(adapter_shapes("full_adapter", "zoo"), seed=3))
    write(folder, "adapter-light", fill(adapter_shapes("light_adapter"), seed=4))


def write_sdxl(folder: Path) -> None:
    import torch

    from comfy.families import ldm_controlnet, union_controlnet
    from comfy.families.base import build_empty
    from tests.comfy import tiny_control

    heads = {"num_heads": -1, "num_head_channels": 64}
    write(folder, "sdxl", fill(unet_shapes(SDXL_BASE, heads), seed=0))
    union = build_empty(
        lambda: union_controlnet.UnionControlNet(control_shape(SDXL_UNION), 8, width=320, layers=1)
    )
    write(folder, "union", fill(shapes_in(tiny_control.union_file(union, "diffusers")), seed=1))
    net = build_empty(lambda: ldm_controlnet.LDMControlNet(control_shape(SDXL_BASE)))
    shapes, own = shapes_in(tiny_control.original_controlnet(net, "", SDXL_BASE)), {}
    for name, shape in shapes.items():
        is_own = name.startswith(("input_hint_block", "zero_convs", "middle_block_out"))
        if is_own or len(shape) == 1:
            own[name] = shape
            continue
        layer = name.removesuffix(".weight")
        own[f"{layer}.up"] = (shape[0], RANK, *[1] * (len(shape) - 2))
        own[f"{layer}.down"] = (RANK, *shape[1:])
    write(folder, "control-lora", {**fill(own, seed=2, scale=0.7), "lora_controlnet": torch.zeros(1)})
    write(folder, "adapter-xl", fill(adapter_shapes("full_adapter_xl"), seed=3))


def flux_control_shapes(*, single: int, modes: int | None, hint_channels: int) -> dict:
    import torch
    from diffusers import FluxControlNetModel

    from comfy.families.base import build_empty

    def make():
        net = FluxControlNetModel(
            in_channels=64, num_layers=1, num_single_layers=single, attention_head_dim=FLUX["head"],
            num_attention_heads=FLUX["heads"], joint_attention_dim=96, pooled_projection_dim=64,
            guidance_embeds=True, num_mode=modes,
        )  # fmt: skip
        net.controlnet_x_embedder = torch.nn.Linear(hint_channels, HIDDEN)
        return net

    return shapes_in(build_empty(make).state_dict())


def write_flux(folder: Path) -> None:
    from comfy.families import ldm_vae
    from comfy.families.base import build_empty
    from tests.comfy import tiny_control, tiny_flux

    def half(weights):
        return {key: tensor.half() for key, tensor in weights.items()}

    write(folder, "flux", half(tiny_flux.transformer("", depth=2, single=1, **FLUX)))
    shape = ldm_vae.VAEShape((128, 256, 512, 512), 2, latent_channels=16, has_quant_conv=False)
    vae = build_empty(lambda: ldm_vae.LDMVAE(shape)).state_dict()
    write(folder, "flux-vae", fill(shapes_in(ldm_vae.checkpoint_weights(vae)), seed=1))
    shapes = flux_control_shapes(single=1, modes=10, hint_channels=64)
    write(folder, "flux-union", fill(shapes, seed=2))
    shapes = flux_control_shapes(single=0, modes=None, hint_channels=68)
    write(folder, "flux-inpaint", fill(shapes, seed=3))
    write(folder, "flux-xlabs", half(tiny_control.xlabs_file(**FLUX)))
    write(folder, "flux-mist", half(tiny_control.mist_file(**FLUX)))


WRITERS = {"sd1": write_sd1, "t2i": write_t2i, "sdxl": write_sdxl, "flux": write_flux}


# --- comparing ---


def effects(path: Path) -> dict[str, float]:
    """How much each control model changes the latents: the largest change over the largest value."""
    import safetensors.torch

    results = safetensors.torch.load_file(path)
    plain = results[PLAIN]
    return {name: float((found - plain).abs().max() / plain.abs().max()) for name, found in results.items()}


def compare_family(family: str, folder: Path, options) -> bool:
    """Run both programs on the files in `folder` and print each difference."""
    outs = {}
    for program, (python, root, env) in parity_upstream.programs(options).items():
        outs[program] = folder / f"{family}-{program}.out.safetensors"
        command = [python, str(Path(__file__).resolve()), "--worker", str(outs[program]), "--families",
                   family, "--folder", str(folder), "--steps", str(options.steps),
                   "--threads", str(options.threads)]  # fmt: skip
        print(f"{family}, {program}:", flush=True)
        subprocess.run(command, env=env, cwd=root, check=True)
    rows = parity_upstream.compare(outs["ours"], outs["upstream"])
    changed = effects(outs["ours"])
    print(f"{family + ': latents':<44}{'largest difference':>20}{'relative':>12}{'control changes':>18}")
    for name, difference, relative, _ in rows:
        print(f"{name:<44}{difference:>20.2e}{relative:>12.2e}{changed[name]:>18.2f}", flush=True)
    return all(relative <= BOUND for _, _, relative, _ in rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upstream", help="checkout of upstream ComfyUI")
    parser.add_argument("--upstream-python", default=sys.executable, help="python with upstream's packages")
    parser.add_argument("--stubs", help="folder put on upstream's path as well")
    parser.add_argument("--families", default=",".join(RUNS), help="which of them, commas between")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="where files are written and kept; those that are there are used")
    parser.add_argument("--worker", metavar="OUT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options)
        return 0
    sys.path.insert(0, str(HERE))
    good = True
    for family in options.families.split(","):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(options.folder or name).resolve()
            if not (folder / f"{family}.safetensors").exists():
                WRITERS[family](folder)
            good = compare_family(family, folder, options) and good
    print(f"equal within {BOUND:g} of the largest value" if good else f"NOT equal within {BOUND:g}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
