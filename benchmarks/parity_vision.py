"""How far are our vision and style models from upstream ComfyUI's on the same files? fp32, on the CPU.

    python benchmarks/parity_vision.py --upstream ../ComfyUI --upstream-python ../ComfyUI/venv/bin/python

Files of random weights in full size (4 GB) are written to a temporary folder: CLIP ViT-L in the layout of
transformers, ViT-H in OpenCLIP's, SigLIP so400m for 384 pixels, Redux and the style adapter. One process per
program loads each and encodes the same picture, cut out and squeezed; all outputs are compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
SIGLIP = {"width": 1152, "layers": 27, "mlp": 4304}
FIELDS = ("last_hidden_state", "penultimate_hidden_states", "image_embeds")


# --- shapes of the files ---


def open_clip_shapes(*, width: int, layers: int, projection: int, patch=14, size=224) -> dict:
    """Name -> shape of a vision model's weights in OpenCLIP's layout, below `visual.`."""
    places = (size // patch) ** 2 + 1
    shapes = {
        "class_embedding": (width,), "conv1.weight": (width, 3, patch, patch),
        "positional_embedding": (places, width), "proj": (width, projection),
    }  # fmt: skip
    blocks = [f"transformer.resblocks.{i}." for i in range(layers)]
    norms = ["ln_pre", "ln_post", *(f"{block}{name}" for block in blocks for name in ("ln_1", "ln_2"))]
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for block in blocks:
        shapes |= {
            f"{block}attn.in_proj_weight": (3 * width, width),
            f"{block}attn.in_proj_bias": (3 * width,),
        }
        for name, rows, columns in (
            ("attn.out_proj", width, width), ("mlp.c_fc", 4 * width, width), ("mlp.c_proj", width, 4 * width),
        ):  # fmt: skip
            shapes |= {f"{block}{name}.weight": (rows, columns), f"{block}{name}.bias": (rows,)}
    return shapes


def transformers_shapes(*, width: int, layers: int, mlp: int, patch=14, size=224, projection=None) -> dict:
    """The same in transformers' layout; without a projection it is SigLIP."""
    is_clip, inside = projection is not None, "vision_model.encoder.layers."
    places = (size // patch) ** 2 + is_clip
    shapes = {
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (places, width),
    }
    norms = ["vision_model.post_layernorm"]
    if is_clip:
        shapes["vision_model.embeddings.class_embedding"] = (width,)
        shapes["visual_projection.weight"] = (projection, width)
        norms.append("vision_model.pre_layrnorm")
    else:
        shapes["vision_model.embeddings.patch_embedding.bias"] = (width,)
    norms += [f"{inside}{i}.layer_norm{n}" for i in range(layers) for n in (1, 2)]
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for i in range(layers):
        matrices = {f"self_attn.{side}_proj": (width, width) for side in ("q", "k", "v", "out")}
        matrices |= {"mlp.fc1": (mlp, width), "mlp.fc2": (width, mlp)}
        for name, shape in matrices.items():
            shapes |= {f"{inside}{i}.{name}.weight": shape, f"{inside}{i}.{name}.bias": shape[:1]}
    return shapes


def style_shapes(width=1024, layers=3, tokens=8, context=768) -> dict:
    """The style adapter's weights: its layers are OpenCLIP's."""
    blocks = open_clip_shapes(width=width, layers=layers, projection=context)
    shapes = {"style_embedding": (1, tokens, width)}
    for name, shape in blocks.items():
        if name.startswith(("transformer.", "ln_", "proj")):
            shapes[name.replace("transformer.resblocks", "transformer_layes")] = shape
    return shapes


def redux_shapes(width=1152, context=4096) -> dict:
    return {
        "redux_up.weight": (3 * context, width), "redux_up.bias": (3 * context,),
        "redux_down.weight": (context, 3 * context), "redux_down.bias": (context,),
    }  # fmt: skip


MODELS = {
    "ViT-L": lambda: transformers_shapes(width=1024, layers=24, mlp=4096, projection=768),
    "ViT-H": lambda: {
        f"visual.{key}": shape
        for key, shape in open_clip_shapes(width=1280, layers=32, projection=1024).items()
    },
    "SigLIP": lambda: transformers_shapes(**SIGLIP, size=384),
}
STYLES = {"ViT-L": style_shapes, "SigLIP": redux_shapes}


def write(path: Path, shapes: dict) -> None:
    """Random weights, scaled so that what passes through keeps its size."""
    import math

    import safetensors.torch
    import torch

    torch.manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        is_norm = len(shape) == 1 and name.endswith("weight")
        scale = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 and "embedding" not in name else 0.1
        weights[name] = ((torch.randn(shape) * scale) + is_norm).half()
    safetensors.torch.save_file(weights, path)


# --- the worker: the same calls for both programs ---


def worker(folder: Path, out: str) -> None:
    sys.argv = [sys.argv[0], "--cpu"]
    from parity_upstream import prepare_upstream

    prepare_upstream()
    import safetensors.torch
    import torch

    import comfy.clip_vision
    import comfy.sd

    torch.set_num_threads(2)
    coarse = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    image = torch.nn.functional.interpolate(coarse, (300, 410), mode="bicubic").clamp(0, 1).movedim(1, -1)
    results = {}
    with torch.inference_mode():
        for name in MODELS:
            model = comfy.clip_vision.load(str(folder / f"{name}.safetensors"))
            for crop in (True, False):
                seen = model.encode_image(image, crop=crop)
                told = f"{name}, {'cut out' if crop else 'squeezed'}"
                results |= {f"{told}: {field}": seen[field].clone() for field in FIELDS}
            if name in STYLES:
                style = comfy.sd.load_style_model(str(folder / f"style of {name}.safetensors"))
                results[f"{name}: style"] = style.get_cond(seen).contiguous()
    safetensors.torch.save_file(results, out)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upstream", help="checkout of upstream ComfyUI")
    parser.add_argument("--upstream-python", default=sys.executable, help="python with its requirements")
    parser.add_argument("--stubs", help="folder put on upstream's path as well")
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(Path(options.worker[0]), options.worker[1])
        return 0
    import parity_upstream

    with tempfile.TemporaryDirectory() as name:
        folder, files = Path(name), {}
        for kind, shapes in MODELS.items():
            write(folder / f"{kind}.safetensors", shapes())
        for kind, shapes in STYLES.items():
            write(folder / f"style of {kind}.safetensors", shapes())
        for program, (python, root, env) in parity_upstream.programs(options).items():
            files[program] = folder / f"{program}.out"
            env = {**env, "PYTHONPATH": os.pathsep.join((env["PYTHONPATH"], str(HERE / "benchmarks")))}
            command = [python, str(Path(__file__).resolve()), "--worker", str(folder), str(files[program])]
            subprocess.run(command, env=env, cwd=root, check=True)
        worst = {}
        for result, difference, relative, _ in parity_upstream.compare(files["ours"], files["upstream"]):
            print(f"{result:<50}{difference:>12.2e}{relative:>12.2e}")
            worst[result] = relative
    print(json.dumps({"largest relative difference": max(worst.values())}))
    return 0 if max(worst.values()) < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
