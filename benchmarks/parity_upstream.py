"""How far are our numbers from upstream ComfyUI's on the same file, seed and graph? fp32, on the CPU.

    python benchmarks/parity_upstream.py --upstream ../ComfyUI --upstream-python ../ComfyUI/venv/bin/python

A full-size checkpoint of random weights is written to a temporary folder (SD1.5: 2 GB; with --tiny 0.6 GB:
half of the UNet's levels). `--family` chooses which model it is. Then one worker process per program loads it
and runs the same calls, one after the other, and the results are compared: prompts with weights and of two
chunks, clip skip, one evaluation of the UNet, VAE encode and decode, and pictures by several samplers and
schedulers. Then both servers are started, run the graphs of parity_graphs.py, and their PNG files are
compared.
"""

import argparse
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import parity_graphs
import parity_vision
from PIL import Image

HERE = Path(__file__).resolve().parent.parent
PROMPTS = {
    "plain": "a photograph of an astronaut riding a horse",
    "weights": "a (red:1.3) circle, ((big)), [blue], \\(not\\) (((deep)) nested:0.7)",
    "two chunks": ", ".join(f"word number {i} of a (long:1.1) prompt" for i in range(20)),
    "empty": "",
}
SAMPLERS = [
    ("euler", "normal"), ("euler_ancestral", "karras"), ("dpmpp_2m", "karras"), ("ddim", "simple"),
    ("heun", "normal"), ("dpmpp_2m_sde", "karras"), ("deis", "normal"), ("exp_heun_2_x0", "normal"),
    ("exp_heun_2_x0_sde", "karras"), ("dpmpp_2s_ancestral_cfg_pp", "karras"), ("uni_pc", "normal"),
    ("uni_pc_bh2", "karras"),
]  # fmt: skip
PICTURE_LIMIT = 2 / 255


# --- the worker: the same calls for both programs ---


def worker(checkpoint: str, out: str, size: int, steps: int) -> None:
    """Run all calls with the `comfy` that is first on the path, and save every result."""
    sys.argv = [sys.argv[0], "--cpu"]
    prepare_upstream()
    import safetensors.torch
    import torch

    import comfy.sd

    torch.set_num_threads(2)
    results, seconds = {}, {}
    started = time.perf_counter()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(checkpoint)
    seconds["load"] = time.perf_counter() - started
    with torch.inference_mode():
        for step in (encode_prompts, evaluate_unet, run_vae, draw_pictures):
            started = time.perf_counter()
            step(results, model=model, clip=clip, vae=vae, size=size, steps=steps)
            seconds[step.__name__] = time.perf_counter() - started
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in results.items()}, out)
    Path(out).with_suffix(".json").write_text(json.dumps(seconds))


def prepare_upstream() -> None:
    """Upstream reads the command line while importing, and only after it was told to."""
    try:
        import comfy.options
    except ImportError:
        from comfy.cli_args import parse

        parse(["--cpu"])
    else:
        comfy.options.enable_args_parsing()


def encode_prompts(results, *, clip, **_unused):
    for name, text in PROMPTS.items():
        cond, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
        results[f"clip/{name}/conditioning"], results[f"clip/{name}/pooled"] = cond, pooled
    skipping = clip.clone()
    skipping.clip_layer(-2)
    results["clip/skip 2/conditioning"] = skipping.encode_from_tokens(skipping.tokenize(PROMPTS["weights"]))


def evaluate_unet(results, *, model, size, **_unused):
    import torch

    import comfy.model_management

    comfy.model_management.load_model_gpu(model)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, size // 8, size // 8 + 2, generator=generator)
    context = results["clip/weights/conditioning"].repeat(2, 1, 1)
    sizes = {"width": size, "height": size + 16, "crop_w": 8, "target_width": size, "prompt_type": "negative"}
    y = model.model.encode_adm(pooled_output=results["clip/weights/pooled"], **sizes)
    vector = {} if y is None else {"y": y.repeat(2, 1)}
    results.update({f"unet/{name}": value for name, value in vector.items()})
    for sigma in (14.0, 1.0, 0.05):
        out = model.model.apply_model(x * sigma, torch.full((2,), sigma), c_crossattn=context, **vector)
        results[f"unet/sigma {sigma}"] = out


def run_vae(results, *, vae, size, **_unused):
    import torch

    generator = torch.Generator().manual_seed(2)
    image = torch.rand(1, size, size + 5, 3, generator=generator)
    results["vae/encode"] = vae.encode(image)
    results["vae/decode"] = vae.decode(torch.randn(1, 4, size // 8, size // 8, generator=generator))
    latent = torch.randn(1, 4, 24, 20, generator=generator)
    results["vae/decode tiled"] = vae.decode_tiled(latent, tile_x=16, tile_y=16, overlap=4)


def draw_pictures(results, *, model, clip, vae, size, steps, **_unused):
    import torch

    import comfy.sample

    positive = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPTS["weights"]))
    negative = clip.encode_from_tokens_scheduled(clip.tokenize("blurry"))
    empty = torch.zeros(1, 4, size // 8, size // 8)
    for sampler, scheduler in SAMPLERS:
        for denoise in (1.0, 0.6) if sampler == "euler" else (1.0,):
            start = empty if denoise == 1.0 else vae.encode(results["picture/euler, normal"].float())
            latent = comfy.sample.sample(
                model, comfy.sample.prepare_noise(start, 42), steps, 5.0, sampler, scheduler, positive,
                negative,
                start, denoise=denoise, disable_pbar=True, seed=42,
            )  # fmt: skip
            name = f"{sampler}, {scheduler}" + ("" if denoise == 1.0 else f", denoise {denoise}")
            results[f"latent/{name}"] = latent
            results[f"picture/{name}"] = vae.decode(latent)


# --- the checkpoint ---


# Per family: sizes of the UNet in full and with --tiny, text encoders by prefix, tensors beside the weights.
# Upstream tells families apart by their full widths. The last levels of --tiny are left out, or shallower.
SD1_UNET = {
    "in_channels": 4, "out_channels": 4, "model_channels": 320, "channel_mult": (1, 2, 4, 4),
    "num_res_blocks": (2, 2, 2, 2), "transformer_depth": (1, 1, 1, 0), "transformer_depth_middle": 1,
    "context_dim": 768, "use_linear_in_transformer": False, "adm_in_channels": None,
}  # fmt: skip
SD2_UNET = {**SD1_UNET, "context_dim": 1024, "use_linear_in_transformer": True}
UNCLIP_UNET = {**SD2_UNET, "adm_in_channels": 2048}
SDXL_UNET = {
    **SD2_UNET, "channel_mult": (1, 2, 4), "num_res_blocks": (2, 2, 2), "transformer_depth": (0, 2, 10),
    "transformer_depth_middle": 10, "context_dim": 2048, "adm_in_channels": 2816,
}  # fmt: skip
REFINER_UNET = {
    **SD2_UNET, "model_channels": 384, "transformer_depth": (0, 4, 4, 0), "transformer_depth_middle": 4,
    "context_dim": 1280, "adm_in_channels": 2560,
}  # fmt: skip
TWO_LEVELS = {"channel_mult": (1, 2), "num_res_blocks": (2, 2), "transformer_depth": (1, 0)}
SHALLOW = {"num_res_blocks": (1, 1, 1), "transformer_depth": (0, 2, 5), "transformer_depth_middle": 1}
SDXL_TEXT = {"conditioner.embedders.0.transformer.": "CLIP_L", "conditioner.embedders.1.model.": "CLIP_G"}
SD2_TEXT = {"cond_stage_model.model.": "CLIP_H"}
FAMILIES: dict[str, tuple[dict, dict, dict, tuple[str, ...]]] = {
    "sd1": (SD1_UNET, TWO_LEVELS, {"cond_stage_model.transformer.": "CLIP_L"}, ()),
    "sd2": (SD2_UNET, TWO_LEVELS, SD2_TEXT, ()),
    "sd2-v": (SD2_UNET, {}, SD2_TEXT, ()),
    "sd21-unclip": (UNCLIP_UNET, TWO_LEVELS, {**SD2_TEXT, "embedder.model.visual.": "VISION_H"}, ()),
    "sdxl": (SDXL_UNET, SHALLOW, SDXL_TEXT, ()),
    "sdxl-v": (SDXL_UNET, SHALLOW, SDXL_TEXT, ("v_pred", "ztsnr")),
    "sdxl-edm": (SDXL_UNET, SHALLOW, SDXL_TEXT, ("edm_mean", "edm_std")),
    "sdxl-refiner": (REFINER_UNET, {}, {"conditioner.embedders.0.model.": "CLIP_G"}, ()),
}
# SD2 files tell by the spread of these biases whether the network predicts velocity (0.1) or noise.
TELLING = ".transformer_blocks.0.norm1.bias"


def write_checkpoint(path: Path, *, tiny: bool, dtype_name: str, family: str = "sd1") -> None:
    """Random weights in the family's layout, scaled so that what passes through keeps its size."""
    import safetensors.torch
    import torch

    shapes = checkpoint_shapes(family, tiny)
    torch.manual_seed(0)
    weights = {name: torch.tensor([]) for name in FAMILIES[family][3]}
    for name, shape in shapes.items():
        if len(shape) > 1:
            fan_in = 1
            for length in shape[1:]:
                fan_in *= length
            scale = 0.02 if "embedding" in name else fan_in**-0.5
            weights[name] = (torch.randn(shape) * scale).to(getattr(torch, dtype_name))
        else:
            start = 1.0 if name.endswith("weight") else 0.0
            spread = 0.02 if family in ("sd2", "sd21-unclip") and name.endswith(TELLING) else 0.1
            weights[name] = (start + spread * torch.randn(shape)).to(getattr(torch, dtype_name))
    safetensors.torch.save_file(weights, path)


def write_in_own_process(path: Path, **kind) -> None:
    """`write_checkpoint` in a process that gives its memory back: the programs to be compared need it."""
    child = multiprocessing.get_context("spawn").Process(target=write_checkpoint, args=(path,), kwargs=kind)
    child.start()
    child.join()
    if child.exitcode != 0:
        raise SystemExit("The checkpoint could not be written: see above.")


def checkpoint_shapes(family: str, tiny: bool) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight, from our own families built without memory."""
    sys.path.insert(0, str(HERE))
    from comfy.families import ldm_unet, ldm_vae
    from comfy.families.base import build_empty

    full, smaller, text, _ = FAMILIES[family]
    unet_config = {**full, **smaller} if tiny else full
    heads = {} if family == "sd1" else {"num_heads": -1, "num_head_channels": 64}
    unet = ldm_unet.LDMUNet.empty(**unet_config, **heads).state_dict()
    names = ldm_unet.checkpoint_names(unet, unet_config)
    shapes = {f"model.diffusion_model.{names[key]}": tuple(tensor.shape) for key, tensor in unet.items()}
    vae_shape = ldm_vae.VAEShape((128, 256, 512, 512), layers_per_block=2, latent_channels=4)
    vae = build_empty(lambda: ldm_vae.LDMVAE(vae_shape))
    for key, tensor in ldm_vae.checkpoint_weights(vae.state_dict()).items():
        shapes[f"first_stage_model.{key}"] = tuple(tensor.shape)
    for prefix, encoder in text.items():
        shapes.update({prefix + key: shape for key, shape in text_shapes(encoder).items()})
    return shapes


def text_shapes(encoder: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of CLIP_L, or of CLIP_H, CLIP_G or a vision model in OpenCLIP's layout."""
    if encoder == "VISION_H":
        return parity_vision.open_clip_shapes(width=1280, layers=32, projection=1024)
    from comfy.families import clip_text, open_clip_text
    from comfy.families.base import build_empty

    config = getattr(clip_text, encoder)
    weights = build_empty(lambda: clip_text.ClipTextModel(config)).state_dict()
    if encoder == "CLIP_L":
        return {key: tuple(tensor.shape) for key, tensor in weights.items()}
    shapes = {key: tuple(t.shape) for key, t in open_clip_text.to_open_clip(weights).items()}
    return {**shapes, "text_projection": (config["hidden_size"],) * 2}


# --- both servers, the same graphs ---


def request(url: str, body=None):
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=30) as answer:
        return answer.read()


def pictures_of_server(
    python: str, root: Path, env: dict, base: Path, *, checkpoint: Path, port: int, prompts: dict[str, dict]
) -> dict[str, list[bytes]]:
    """Start the server in `root`, run the graphs, and return the PNG files that each of them saved.

    `base` is an empty folder, for models, input and output. A graph that fails has no files.
    """
    folder = base / "models" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / checkpoint.name).symlink_to(checkpoint)
    (base / "input").mkdir()
    parity_graphs.write_picture(base / "input" / parity_graphs.PICTURE)
    command = [python, str(root / "main.py"), "--cpu", "--port", str(port), "--base-directory", str(base),
               "--disable-auto-launch", "--disable-all-custom-nodes"]  # fmt: skip
    log = open(base / "log.txt", "w")  # noqa: SIM115 (the process writes on while this function waits)
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=root)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: request(f"{url}/system_stats"), seconds=120)
        return {name: pictures_of_prompt(url, name, prompt) for name, prompt in prompts.items()}
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def pictures_of_prompt(url: str, name: str, prompt: dict) -> list[bytes]:
    try:
        prompt_id = json.loads(request(f"{url}/prompt", {"prompt": prompt}))["prompt_id"]
    except urllib.error.HTTPError as refusal:
        raise RuntimeError(f"{name}: {refusal.read().decode()}") from refusal
    entry = wait_for(lambda: json.loads(request(f"{url}/history/{prompt_id}"))[prompt_id], seconds=1200)
    if entry["status"]["status_str"] != "success":
        details = dict(entry["status"]["messages"])["execution_error"]
        print(f"{url}: {name}: {details['node_type']}: {details['exception_message'].strip()}")
        return []
    return [
        request(f"{url}/view?filename={image['filename']}&type=output&subfolder={image['subfolder']}")
        for image in entry["outputs"][parity_graphs.SAVE]["images"]
    ]


def wait_for(ask, *, seconds: float):
    """What `ask` returns as soon as it does not raise."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except (urllib.error.URLError, ConnectionError, KeyError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


# --- comparing ---


def compare(ours: Path, theirs: Path) -> list[tuple[str, float, float, float]]:
    """(name, largest absolute difference, the same over the largest value, spread) of every result."""
    import safetensors.torch

    left, right = safetensors.torch.load_file(ours), safetensors.torch.load_file(theirs)
    rows = []
    for name, tensor in left.items():
        other = right[name]
        assert tensor.shape == other.shape, (
            f"{name}: {tuple(tensor.shape)} here, {tuple(other.shape)} upstream"
        )
        difference = (tensor.float() - other.float()).abs().max().item()
        relative = difference / max(other.abs().max().item(), 1e-12)
        rows.append((name, difference, relative, other.float().std().item()))
    return rows


def environment(root: Path, stubs: str | None) -> dict:
    path = os.pathsep.join(filter(None, [str(root), stubs]))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}


def programs(options) -> dict[str, tuple[str, Path, dict]]:
    upstream = Path(options.upstream).resolve()
    return {
        "ours": (sys.executable, HERE, environment(HERE, None)),
        "upstream": (options.upstream_python, upstream, environment(upstream, options.stubs)),
    }


def run_workers(options, folder: Path, checkpoint: Path) -> bool:
    files = {}
    for name, (python, root, env) in programs(options).items():
        files[name] = folder / f"{name}.safetensors"
        command = [python, str(Path(__file__).resolve()), "--worker", str(files[name]), "--checkpoint",
                   str(checkpoint), "--size", str(options.size), "--steps", str(options.steps)]  # fmt: skip
        subprocess.run(command, env=env, cwd=root, check=True)
        print(name, "seconds:", json.loads(files[name].with_suffix(".json").read_text()))
    good = True
    print(f"{'':<36}{'largest difference':>20}{'relative':>12}{'std of values':>16}")
    for name, difference, relative, spread in compare(files["ours"], files["upstream"]):
        print(f"{name:<36}{difference:>20.2e}{relative:>12.2e}{spread:>16.3f}")
        if name.startswith("picture/"):
            good = good and difference <= PICTURE_LIMIT
    return good


def run_servers(options, folder: Path, checkpoint: Path) -> bool:
    sizes = {"size": options.size, "steps": options.steps}
    prompts = parity_graphs.prompts(checkpoint.name, family=options.family, **sizes)
    if options.graphs:
        parts = options.graphs.split(",")
        prompts = {name: prompt for name, prompt in prompts.items() if any(part in name for part in parts)}
    ours, theirs = (
        pictures_of_server(
            python, root, env, folder / name, checkpoint=checkpoint, port=port, prompts=prompts
        )
        for port, (name, (python, root, env)) in enumerate(programs(options).items(), start=18461)
    )
    good = True
    print(f"{'PNG files of both servers':<40}{'number, size':>16}{'of 255':>8}{'std of values':>16}")
    for name in prompts:
        if not (ours[name] and theirs[name]):
            good = False
            continue
        left, right = (np.stack([pixels(png) for png in pngs]) for pngs in (ours[name], theirs[name]))
        assert left.shape == right.shape, f"{name}: {left.shape} here, {right.shape} upstream"
        number, height, width, _ = left.shape
        difference = np.abs(left - right).max()
        good = good and difference <= 2
        print(f"{name:<40}{f'{number}, {width}x{height}':>16}{difference:>8}{left.std():>16.1f}")
    return good


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upstream", help="checkout of upstream ComfyUI")
    parser.add_argument(
        "--upstream-python", default=sys.executable, help="python with upstream's requirements"
    )
    parser.add_argument("--stubs", help="folder put on upstream's path as well")
    parser.add_argument("--checkpoint", help="use this file instead of writing one")
    parser.add_argument("--family", default="sd1", choices=FAMILIES, help="of the written file")
    parser.add_argument(
        "--tiny", action="store_true", help="a smaller UNet: two levels, of SDXL a shallow one (no refiner)"
    )
    parser.add_argument(
        "--dtype", default="float16", choices=["float16", "float32"], help="of the written file"
    )
    parser.add_argument("--size", type=int, default=128, help="pixels of the pictures")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", choices=["modules", "servers"], help="one of the two comparisons")
    parser.add_argument("--graphs", help="only graphs with one of these (commas between) in their name")
    parser.add_argument("--worker", metavar="OUT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.checkpoint, options.worker, options.size, options.steps)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = Path(options.checkpoint or folder / f"random-{options.family}.safetensors").resolve()
        if not options.checkpoint:
            kind = {"dtype_name": options.dtype, "family": options.family}
            write_in_own_process(checkpoint, tiny=options.tiny, **kind)
        print(f"{checkpoint.name}: {checkpoint.stat().st_size / 1e9:.2f} GB")
        good = options.only == "servers" or run_workers(options, folder, checkpoint)
        if options.only != "modules":
            good = run_servers(options, folder, checkpoint) and good
    print("equal within 2/255 at every pixel" if good else "NOT equal within 2/255")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
