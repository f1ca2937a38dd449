"""Hundreds of switches between workflows of pinned models: no weight is read again, and none is copied."""

import gc
import hashlib
import os
import random

import pytest
import torch

import comfy.model_management
import comfy.utils
import comfy_depot
import execution
import folder_paths
import main
from comfy.cli_args import args
from comfy_depot.host import Host
from comfy_depot.options import Budget, Options
from comfy_execution.caching import CacheType
from tests.comfy import tiny_control, tiny_sd1
from tests.comfy_execution import rig
from tests.fakes.accelerator import KINDS
from tests.fakes.accounting_device import counting
from tests.fakes.graphs import Bench, Graph, all_nodes
from tests.fakes.opened_files import counted_opens

PINS = ("checkpoints/*", "loras/*", "vae/*", "controlnet/*")
INPUTS = 200_000
"""Bytes of latents, noise, texts, pictures and numbers that a workflow may move; a checkpoint is 14 MB."""


def lora(seed):
    """On the attention of the UNet and of the text encoder."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for layer, width in (("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", 32),
                         ("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_out_0", 64),
                         ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 64)):
        out[f"{layer}.lora_down.weight"] = torch.randn(2, width, generator=generator)
        out[f"{layer}.lora_up.weight"] = torch.randn(width, 2, generator=generator)
    return out


def own_vae():
    torch.manual_seed(7)
    weights = tiny_sd1.vae_weights(tiny_sd1.tiny_vae())
    return {name.removeprefix("first_stage_model."): weight for name, weight in weights.items()}


FILES = {
    **{f"checkpoints/{name}": (lambda seed=seed: tiny_sd1.checkpoint(seed))
       for seed, name in enumerate("abc")},
    **{f"loras/{seed}": (lambda seed=seed: lora(seed)) for seed in (1, 2)},
    "vae/own": own_vae,
    "controlnet/net": lambda: tiny_control.original_controlnet(tiny_control.controlnet()),
}


def workflow(name="a", *, loras=(), vae=False, control=False, skip=0, text="a cat", free_u=False, other=None):
    """A function that writes the prompt for a seed."""

    def write(seed):
        g = Graph()
        model, clip, own = g.CheckpointLoaderSimple(ckpt_name=f"{name}.safetensors")
        if other is not None:
            second = g.CheckpointLoaderSimple(ckpt_name=f"{other}.safetensors")[0]
            model = g.ModelMergeSimple(model1=model, model2=second, ratio=0.5)
        for number, strength in loras:
            model, clip = g.LoraLoader(model=model, clip=clip, lora_name=f"{number}.safetensors",
                                       strength_model=strength, strength_clip=strength)
        if skip:
            clip = g.CLIPSetLastLayer(clip=clip, stop_at_clip_layer=skip)
        if free_u:
            model = g.FreeU(model=model)
        positive = negative = g.CLIPTextEncode(text=text, clip=clip)
        if control:
            net = g.ControlNetLoader(control_net_name="net.safetensors")
            hint = g.EmptyImage(width=32, height=32, color=0x808080)
            positive, negative = g.ControlNetApplyAdvanced(
                positive=positive, negative=negative, control_net=net, image=hint
            )
        latent = g.EmptyLatentImage(width=32, height=32)
        sampled = g.KSampler(model=model, positive=positive, negative=negative, latent_image=latent,
                             seed=seed, steps=1, cfg=1.0)
        g.keep(g.VAEDecode(samples=sampled, vae=g.VAELoader(vae_name="own.safetensors") if vae else own))
        return g

    return write


PLAIN = {name: workflow(name) for name in "abc"}
WORKFLOWS = {
    **PLAIN,
    "lora": workflow(loras=[(1, 0.8)]), "weaker": workflow(loras=[(1, 0.3)]),
    "other lora": workflow(loras=[(2, 0.8)]), "two": workflow(loras=[(1, 0.8), (2, 0.5)]),
    "two, turned": workflow(loras=[(2, 0.8), (1, 0.5)]), "lora on b": workflow("b", loras=[(1, 0.8)]),
    "two on c": workflow("c", loras=[(1, 0.8), (2, 0.5)]), "own vae": workflow(vae=True),
    "own vae on b": workflow("b", vae=True), "control": workflow(control=True),
    "control on c": workflow("c", control=True), "control, lora": workflow(control=True, loras=[(2, 1.0)]),
    "skip": workflow("b", skip=-2), "another text": workflow("c", text="a dog"),
    "free u": workflow(free_u=True), "merge": workflow(other="b"),
    "merge, lora": workflow("b", other="c", loras=[(1, 0.8)]),
}  # fmt: skip


class Stage:
    """A depot and an executor that keeps no results, so that every loader runs in every prompt."""

    def __init__(self, base, kind):
        self.base = base
        self.bench = Bench("gpu_only", kind=kind)
        self.bench.executor = execution.PromptExecutor(rig.Host(), cache_type=CacheType.NONE)
        self.seed = 0
        for place, weights in FILES.items():
            path = base / f"models/{place}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            comfy.utils.save_torch_file(weights(), path)

    @property
    def opened(self):
        """The files that were opened, as FILES names them."""
        return [path.rpartition("models/")[2] for path in self.paths]

    def start(self, pins):
        host = Host(load_settings=main.load_settings, bytes_free=main.bytes_free)
        options = Options(model_manifests=self.base, depot_dir=self.base / "depot", pin=pins,
                          resident_budget=Budget(size=1 << 30))
        self.residents = comfy_depot.start(options, host).residents

    def run(self, name):
        """What the workflow has moved, with a seed of its own."""
        self.seed += 1
        graph = WORKFLOWS[name](self.seed)
        with counting() as moved:
            self.bench.run(graph)
        return moved

    def pinned_weights(self, names="abc"):
        """{place of a weight in memory: hash} of the pinned models, after their plain workflows."""
        for name in names:
            self.run(name)
        found = {}
        for model in self.residents._models.values():
            for part in model._parts() if model.is_pinned else ():
                for number, tensor in enumerate(part.tensors()):
                    place = (model.title, part.size, number, tensor.data_ptr())
                    found[place] = hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest()
        return found


@pytest.fixture(params=KINDS)
def stage(tmp_path, monkeypatch, request):
    settings = dict(vars(args))
    args.base_directory = str(tmp_path)
    folder_paths.apply_arguments(args)
    monkeypatch.setattr(comfy.model_management, "EXTRA_RESERVED_VRAM", 0, raising=False)
    made = Stage(tmp_path, request.param)
    made.paths = counted_opens(monkeypatch)
    with all_nodes():
        yield made
    comfy_depot.stop()
    vars(args).clear()
    vars(args).update(settings)
    folder_paths.apply_arguments(args)


def random_switches(count, names=tuple(WORKFLOWS), seed=3):
    """Names of which none follows itself."""
    chance = random.Random(seed)
    last = None
    for _ in range(count):
        last = chance.choice([name for name in names if name != last])
        yield last


MANY = int(os.environ.get("SWITCHES", "40"))
"""SWITCHES=500 takes minutes."""


@pytest.mark.parametrize(
    "count", [5, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])]
)
def test_switching_between_pinned_models_moves_what_repeating_a_workflow_moves(stage, count):
    stage.start(PINS)
    repeated = {}
    for name in WORKFLOWS:
        stage.run(name)
        repeated[name] = stage.run(name)
        assert repeated[name].to_device.bytes < INPUTS and repeated[name].to_host.bytes < INPUTS
    opened, weights = list(stage.opened), stage.pinned_weights()
    assert sorted(opened) == sorted(f"{place}.safetensors" for place in FILES), "each once"
    assert len(weights) > 1000
    for name in random_switches(count):
        assert stage.run(name) == repeated[name], name
    gc.collect()
    assert stage.opened == opened
    assert stage.pinned_weights() == weights, "every weight is where it was, with the same bytes"
    stats = stage.residents.memory_stats()
    assert (stats["loads"], stats["evictions"]) == (len(FILES), 0)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["acct"], indirect=True)
def test_on_a_device_that_is_too_small_for_all_only_what_is_not_pinned_comes_and_goes(stage):
    stage.start(("checkpoints/a.safetensors", "loras/*", "controlnet/*"))
    names = ("b", "lora", "c", "own vae on b")
    for name in ("a", "lora", "control"):
        stage.run(name)
    listed = {name: model["bytes"] for model in stage.residents.models() for name in model["names"]}
    size = listed["checkpoints/a.safetensors"]
    stage.bench.device["capacity"] = int(2.9 * size)  # two checkpoints, and an eighth to compute with
    opened, weights = list(stage.opened), stage.pinned_weights("a")
    for name in names:
        stage.run(name)
        stage.run("a")
        comfy_depot.hooks.free_idle_models()
    again = stage.opened[len(opened):]
    assert again.count("checkpoints/b.safetensors") == 2 and again.count("checkpoints/c.safetensors") == 1
    assert not {"checkpoints/a.safetensors", "loras/1.safetensors", "controlnet/net.safetensors"} & set(again)
    assert stage.pinned_weights("a") == weights


@pytest.mark.slow
def test_the_twenty_workflows_give_twenty_pictures(stage):
    stage.start(PINS)
    assert len(WORKFLOWS) == 20
    pictures = {name: stage.bench.run(write(1))[0].cpu() for name, write in WORKFLOWS.items()}
    names = list(pictures)
    same = {(one, two) for place, one in enumerate(names) for two in names[:place]
            if torch.equal(pictures[one], pictures[two])}
    assert same == set()
