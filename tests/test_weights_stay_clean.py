"""Whatever workflows do to models, the weights in memory are those of the file again afterwards.

Random workflows run through the executor: LoRAs, merges, ControlNets, patches of the sampler and of layers,
saving; cancelled in the middle, failing, out of memory, forced, freed between two of them.
"""

import hashlib
import os
import random

import pytest
import torch

import comfy.lora
import comfy.model_management
import comfy.sd
import comfy.utils
import comfy_depot
import folder_paths
import main
import nodes
from app import worker
from comfy import interruption
from comfy.cli_args import args
from comfy_depot.host import Host
from comfy_depot.options import Budget, Options
from comfy_extras import (
    nodes_attention_multiply,
    nodes_freelunch,
    nodes_hypertile,
    nodes_model_advanced,
    nodes_model_merging,
    nodes_pag,
    nodes_sag,
    nodes_tomesd,
)
from tests.app.test_worker import Host as Sink
from tests.comfy import tiny_control, tiny_sd1

TOPICS = (nodes_attention_multiply, nodes_freelunch, nodes_hypertile, nodes_model_advanced,
          nodes_model_merging, nodes_pag, nodes_sag, nodes_tomesd)  # fmt: skip
CHECKPOINTS = ("a", "b")
LORAS = ("one", "two", "three")
CONTROLS = ("net", "lora")
STEPS = 2
PATCHES = {
    "FreeU": {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2},
    "FreeU_V2": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "PerturbedAttentionGuidance": {"scale": 3.0},
    "SelfAttentionGuidance": {"scale": 0.5, "blur_sigma": 2.0},
    "RescaleCFG": {"multiplier": 0.7},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": True},
    "ModelSamplingContinuousEDM": {"sampling": "edm_playground_v2.5", "sigma_max": 80.0, "sigma_min": 0.01},
    "ModelSamplingContinuousV": {"sampling": "v_prediction", "sigma_max": 500.0, "sigma_min": 0.03},
    "ModelComputeDtype": {"dtype": "bf16"},
    "UNetSelfAttentionMultiply": {"q": 1.1, "k": 0.9, "v": 1.2, "out": 0.8},
    "HyperTile": {"tile_size": 64, "swap_size": 2, "max_depth": 0, "scale_depth": False},
    "TomePatchModel": {"ratio": 0.3},
}
TROUBLE = ("in a node", "in a step", "in a layer", "while it loads", "cancelled", "out of memory")


class BadPatch:
    """A patch that cannot be computed."""

    name = "bad"

    def calculate_weight(self, *arguments, **options):
        raise ValueError("This patch cannot be computed.")


class Trouble:
    """What goes wrong, and when."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "when": (list(TROUBLE),)}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, model, when):
        model = model.clone()
        calls = []

        def in_a_step(apply, given):
            calls.append(1)
            if len(calls) == STEPS:
                if when == "out of memory":
                    raise torch.OutOfMemoryError("no more")
                if when != "cancelled":
                    raise ValueError("This step fails.")
                interruption.interrupt_current_processing()
            return apply(given["input"], given["timestep"], **given["c"])

        def in_a_layer(*tensors):
            raise ValueError("This layer fails.")

        if when == "in a node":
            comfy.model_management.load_models_gpu([model])
            raise ValueError("This node fails.")
        if when == "in a layer":
            model.set_model_attn1_output_patch(in_a_layer)
        elif when == "while it loads":
            names = sorted(model.model_state_dict("diffusion_model."))
            model.add_patches({names[-5]: BadPatch(), names[1]: (torch.ones(1),)})
        else:
            model.set_model_unet_function_wrapper(in_a_step)
        return (model,)


class Picture:
    """An output node that gives what it gets as a hash."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, image):
        return {"ui": {"sha256": [sha256(image)]}}


# --- the world ---


def lora(seed, names):
    """A LoRA of some of these layers {name in the file: (rows, columns)}."""
    made = torch.Generator().manual_seed(seed)
    found = {}
    for name, (rows, columns) in names.items():
        up, down = (torch.randn(*shape, generator=made) for shape in ((rows, 2), (2, columns)))
        found.update({f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down * 0.1})
    return found


def layers_of(model, clip, seed):
    """Some layers of a MODEL and a CLIP, by their names in LoRAs."""
    chance, found = random.Random(seed), {}
    tables = ((comfy.lora.model_lora_keys_unet(model.model, {}), model.model_state_dict(), "lora_unet_"),
              (comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {}), clip.patcher.model_state_dict(),
               "lora_te"))  # fmt: skip
    for table, weights, begin in tables:
        of_this = [name for name, key in table.items() if name.startswith(begin) and isinstance(key, str)]
        matrices = {name: weights[table[name]].shape for name in of_this if weights[table[name]].ndim == 2}
        chosen = {}
        for name in chance.sample(sorted(matrices), 12):
            chosen.setdefault(table[name], name)
        found.update({name: tuple(matrices[name]) for name in chosen.values()})
    return found


@pytest.fixture
def models(tmp_path):
    """The folder of models."""
    folder = tmp_path / "models"
    net = tiny_control.controlnet()
    files = {
        "checkpoints/a": tiny_sd1.checkpoint(1),
        "checkpoints/b": tiny_sd1.checkpoint(2),
        "controlnet/net": net.state_dict(),
        "controlnet/lora": tiny_control.control_lora_file(net, tiny_sd1.tiny_unet())[0],
    }
    model, clip, *_ = comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(1))
    for seed, name in enumerate(LORAS):
        files[f"loras/{name}"] = lora(seed, layers_of(model, clip, seed))
    for name, weights in files.items():
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        comfy.utils.save_torch_file({key: t.contiguous() for key, t in weights.items()}, str(path))
    return folder


@pytest.fixture
def house(tmp_path, models, monkeypatch):
    """A worker on a started depot."""
    import execution

    settings = dict(vars(args))
    args.cpu, args.base_directory = True, str(tmp_path)
    folder_paths.apply_arguments(args)
    folder_paths.create_working_folders()
    registry = {name: node for topic in TOPICS for name, node in topic.NODE_CLASS_MAPPINGS.items()}
    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", {
        **nodes.NODE_CLASS_MAPPINGS, **registry, "Trouble": Trouble, "Picture": Picture})
    host = Host(load_settings=main.load_settings, bytes_free=main.bytes_free)
    depot = comfy_depot.start(Options(model_manifests=tmp_path, depot_dir=tmp_path / "depot",
                                      resident_budget=Budget(size=1 << 30)), host)
    sink = Sink()
    sink.queue = execution.PromptQueue(sink)
    house = worker.Worker(sink.queue, sink)
    house.residents = depot.residents
    yield house
    comfy_depot.stop()
    vars(args).clear()
    vars(args).update(settings)
    folder_paths.apply_arguments(args)


def run(house, graph, **asked):
    """Run a graph with the output "out"; its entry in the history."""
    number = str(house.queue.task_counter)
    outputs = [node_id for node_id in graph if node_id.startswith("out")]
    house.queue.put((0, number, graph, dict(asked), outputs))
    house.run_next()
    return house.queue.history[number]


def tensors_of(module):
    """Every parameter and buffer, also those that no file has, by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def digests(house):
    """sha256 of all weights of each model in memory, loaded as its file says: by its files and its parts."""
    found = {}
    for model in list(house.residents._models.values()):
        for number, base in enumerate(model.bases()):
            weights = base.model  # the tensors of a LoRA
            if isinstance(weights, torch.nn.Module):
                assert not base.patches and not base.object_patches and not base.wrappers
                assert base.model_options == {"transformer_options": {}}
                comfy.model_management.load_models_gpu([base.clone()])
                weights = tensors_of(base.model)
            found[(model.loader, *model.names, number)] = {key: sha256(t) for key, t in weights.items()}
    return found


def sha256(tensor):
    """Of the bytes of a tensor."""
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


# --- workflows ---


class Graph:
    """A graph that grows."""

    def __init__(self, chance):
        self.chance = chance
        self.nodes = {}

    def add(self, class_type, prefix="", **inputs):
        node_id = f"{prefix}{len(self.nodes)}"
        self.nodes[node_id] = {"class_type": class_type, "inputs": inputs}
        return node_id

    def load(self, name):
        node = self.add("CheckpointLoaderSimple", ckpt_name=f"{name}.safetensors")
        return [node, 0], [node, 1], [node, 2]

    def with_lora(self, model, clip):
        strength = {"lora_name": f"{self.chance.choice(LORAS)}.safetensors",
                    "strength_model": self.chance.choice([-1.5, -0.3, 0.0, 0.5, 1.0, 2.5])}  # fmt: skip
        if self.chance.random() < 0.4:
            return [self.add("LoraLoaderModelOnly", model=model, **strength), 0], clip
        strength["strength_clip"] = self.chance.choice([-1.0, 0.0, 0.7, 3.0])
        node = self.add("LoraLoader", model=model, clip=clip, **strength)
        return [node, 0], [node, 1]

    def merged(self, kind, first, second):
        options = {"MergeSimple": {"ratio": 0.4}, "MergeAdd": {}, "MergeSubtract": {"multiplier": 0.5}}
        name = self.chance.choice(sorted(options))
        inputs = {f"{kind.lower()}1": first, f"{kind.lower()}2": second}
        return [self.add(f"{kind}{name}", **inputs, **options[name]), 0]

    def picture(self, model, clip, vae, *, controls=0, seed=1, sampler="euler"):
        sides = [[self.add("CLIPTextEncode", text=text, clip=clip), 0] for text in ("a cat", "blue")]
        for _ in range(controls):
            name = f"{self.chance.choice(CONTROLS)}.safetensors"
            node = self.add("ControlNetApplyAdvanced", positive=sides[0], negative=sides[1], strength=0.8,
                            control_net=[self.add("ControlNetLoader", control_net_name=name), 0],
                            image=[self.add("EmptyImage", width=64, height=64, batch_size=1, color=255), 0],
                            start_percent=0.0, end_percent=1.0)  # fmt: skip
            sides = [[node, 0], [node, 1]]
        latent = self.add("EmptyLatentImage", width=64, height=64, batch_size=1)
        sampled = self.add("KSampler", model=model, positive=sides[0], negative=sides[1], seed=seed, cfg=3.0,
                           latent_image=[latent, 0], steps=STEPS, sampler_name=sampler, scheduler="normal",
                           denoise=1.0)  # fmt: skip
        image = self.add("VAEDecode", samples=[sampled, 0], vae=vae)
        return self.add("Picture", "out", image=[image, 0])

    def saves(self, model, clip, vae):
        kind = self.chance.choice(["CheckpointSave", "ModelSave", "CLIPSave", "VAESave"])
        parts = {"CheckpointSave": {"model": model, "clip": clip, "vae": vae}, "ModelSave": {"model": model},
                 "CLIPSave": {"clip": clip}, "VAESave": {"vae": vae}}  # fmt: skip
        self.add(kind, "out", **parts[kind], filename_prefix="saved/model")


def plain(name):
    graph = Graph(None)
    graph.picture(*graph.load(name))
    return graph.nodes


def random_workflow(chance, trouble=None):
    """A workflow of everything; with `trouble`, one that goes wrong."""
    graph = Graph(chance)
    first, second = chance.sample(CHECKPOINTS, 2)
    model, clip, vae = graph.load(first)
    for _ in range(chance.randint(0, 2)):
        model, clip = graph.with_lora(model, clip)
    if chance.random() < 0.3:
        name = chance.choice((first, second))  # with itself too: two clones of one model
        other_model, other_clip, _ = graph.load(name)
        if chance.random() < 0.5:
            other_model, other_clip = graph.with_lora(other_model, other_clip)
        model = graph.merged("Model", model, other_model)
        if chance.random() < 0.5:
            clip = graph.merged("CLIP", clip, other_clip)
    if chance.random() < 0.3:
        model, clip = graph.with_lora(model, clip)
    for name in chance.sample(sorted(PATCHES), chance.randint(0, 2)):
        model = [graph.add(name, model=model, **PATCHES[name]), 0]
    if chance.random() < 0.3:
        clip = [graph.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2), 0]
    if trouble is not None:
        model = [graph.add("Trouble", model=model, when=trouble), 0]
    if chance.random() < 0.15:
        graph.saves(model, clip, vae)
    graph.picture(model, clip, vae, controls=chance.choice([0, 0, 1, 2]), seed=chance.randint(1, 9),
                  sampler=chance.choice(["euler", "dpmpp_2m", "euler_ancestral", "uni_pc"]))  # fmt: skip
    return graph.nodes


def disturb(house, chance):
    """Between two prompts: nothing, or what users and hosts do."""
    what = chance.random()
    if what < 0.1:
        comfy.model_management.unload_all_models()
    elif what < 0.15:
        house.queue.set_flag("free_memory", True)
        house.follow_flags()
    elif what < 0.2:
        house.queue.set_flag("unload_models", True)
        house.follow_flags()


MANY = int(os.environ.get("WORKFLOWS", "20"))
"""WORKFLOWS=200 takes minutes."""


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 5), pytest.param(2, MANY, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_weights_are_those_of_their_files_after_any_workflow(house, seed, count):
    chance = random.Random(seed)
    pictures = [run(house, plain(name)) for name in CHECKPOINTS]
    with torch.inference_mode():
        clean = digests(house)
    assert len(clean) == 6
    statuses = []
    for number in range(count):
        trouble = chance.choice(TROUBLE) if chance.random() < 0.3 else None
        graph = random_workflow(chance, trouble)
        entry = run(house, graph, **chance.choice([{}, {}, {"force": True}, {"cache": "off"}]))
        status = entry["status"]["status_str"]
        statuses.append((trouble, status))
        assert (status == "success") is (trouble is None), (number, trouble, entry["status"]["messages"][-1])
        with torch.inference_mode():
            disturb(house, chance)
            if number % 10 == 9 or number == count - 1:
                for name, found in digests(house).items():
                    known = clean.setdefault(name, found)
                    changed = [key for key in known if found.get(key) != known[key]]
                    assert not changed and found.keys() == known.keys(), (number, graph, name, changed)
    again = [run(house, plain(name), force=True) for name in CHECKPOINTS]
    assert [entry["outputs"] for entry in again] == [entry["outputs"] for entry in pictures]
    assert pictures[0]["outputs"] != pictures[1]["outputs"]
