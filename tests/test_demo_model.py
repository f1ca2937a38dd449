"""The demo model draws what the prompt says, through the nodes that its workflow uses."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import nodes
from scripts import demo_autoencoder, demo_drawing, demo_shapes

DATA = Path(__file__).parent / "data"
MODEL = DATA / "demo_shapes.safetensors"


@pytest.fixture(scope="module")
def artist():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nothing in so small a model is worth sharing
    yield demo_drawing.Artist(MODEL)
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "colour", "shape"),
    [(1, "red", "circle"), (2, "blue", "square"), (3, "green", "triangle")],
)
def test_the_prompt_decides_colour_and_shape(artist, seed, colour, shape):
    seen = demo_shapes.look(artist.draw(demo_shapes.prompt_for(colour, shape), seed=seed))
    assert (seen.colour, seen.shape) == (colour, shape), seen


@pytest.mark.slow
def test_a_seed_gives_the_same_picture_again(artist):
    first, again = (artist.draw("a yellow square", seed=7) for _ in range(2))
    assert np.array_equal(first, again)


def test_a_drawn_picture_survives_the_autoencoder(artist):
    drawn = demo_shapes.draw("triangle", demo_shapes.COLOURS["purple"], centre=(30, 34), radius=20)
    with torch.inference_mode():
        latent = artist.vae.encode(torch.from_numpy(drawn).float()[None])
        back = artist.vae.decode(latent)[0].numpy()
    assert latent.shape == (1, 4, 8, 8)
    seen = demo_shapes.look(back)
    assert (seen.colour, seen.shape) == ("purple", "triangle"), seen


def test_the_encoder_computes_the_latents_that_the_training_used(artist):
    drawn = demo_shapes.draw("square", demo_shapes.COLOURS["blue"], centre=(33, 30), radius=18)
    expected = demo_autoencoder.latents_of(demo_autoencoder.to_tensor([drawn]))
    with torch.inference_mode():
        latent = artist.vae.encode(torch.from_numpy(drawn).float()[None])
    assert (latent - expected).abs().max() < 0.15 * expected.std()


RED_CIRCLE = demo_shapes.draw("circle", demo_shapes.COLOURS["red"], centre=(22, 24), radius=16)


def redrawn(artist, prompt, *, denoise, mask=None, seed=8):
    """`RED_CIRCLE` through KSampler with a prompt; a mask (64, 64) says what may change."""
    with torch.inference_mode():
        latent = {"samples": artist.vae.encode(torch.from_numpy(RED_CIRCLE).float()[None])}
        if mask is not None:
            latent = nodes.SetLatentNoiseMask().set_mask(latent, torch.from_numpy(mask).float())[0]
        sides = [nodes.CLIPTextEncode().encode(artist.clip, text)[0] for text in (prompt, "")]
        return artist.draw_from(*sides, seed=seed, latent=latent, denoise=denoise)


def middle_of(picture):
    """(row, column) of the middle of what is in front of the background."""
    mask = demo_shapes.largest_component(demo_shapes.front_of(picture))
    return np.argwhere(mask).mean(axis=0)


@pytest.mark.slow
def test_picture_to_picture_keeps_the_place_and_takes_the_rest_from_the_prompt(artist):
    far = {}
    for denoise in (0.3, 1.0):
        picture = redrawn(artist, "a blue square", denoise=denoise)
        seen = demo_shapes.look(picture)
        assert (seen.colour, seen.shape) == ("blue", "square"), (denoise, seen)
        far[denoise] = float(np.linalg.norm(middle_of(picture) - (24, 22)))
    assert far[0.3] < 4 < far[1.0], far


def test_inpainting_changes_what_is_masked_and_nothing_else(artist):
    """The shape is masked away and painted anew; the columns at the right keep their latents."""
    mask = np.zeros((64, 64))
    mask[:, :48] = 1.0
    picture = redrawn(artist, "a green triangle", denoise=1.0, mask=mask)
    with torch.inference_mode():
        latent = artist.vae.encode(torch.from_numpy(RED_CIRCLE).float()[None])
        untouched = artist.vae.decode(latent)[0].numpy()
    assert np.abs(picture - untouched)[:, 58:].max() < 0.05, "beyond what the decoder sees of the mask"
    seen = demo_shapes.look(picture)
    assert seen.colour == "green", seen
    assert np.abs(picture - untouched)[10:40, 10:36].mean() > 0.15


def test_the_file_is_small_and_says_what_it_is():
    assert MODEL.stat().st_size < 8.5e6
    with safe_open(MODEL, "pt") as file:
        metadata, names = file.metadata(), list(file.keys())
        table = file.get_tensor("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight")
    assert metadata["training_script"] == "scripts/train_demo_model.py"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1"
    assert "model.diffusion_model.input_blocks.0.0.weight" in names
    assert "first_stage_model.decoder.conv_out.weight" in names
    assert table.shape[0] == 49408
    assert int(table.any(dim=1).sum()) < 30  # only the words of the captions are trained


def test_the_workflow_and_the_prompt_are_the_same_graph_and_valid():
    import execution

    workflow = json.loads((DATA / "demo_workflow.json").read_text())
    prompt = json.loads((DATA / "demo_prompt.json").read_text())
    assert workflow["version"] == 0.4
    assert {str(node["id"]): node["type"] for node in workflow["nodes"]} == {
        key: node["class_type"] for key, node in prompt.items()
    }
    linked = {(str(a), slot, str(b)) for _number, a, slot, b, _to, _type in workflow["links"]}
    inputs = ((key, value) for key, node in prompt.items() for value in node["inputs"].values())
    assert linked == {(value[0], value[1], key) for key, value in inputs if isinstance(value, list)}

    sampler = prompt["3"]["inputs"]
    assert (sampler["steps"], sampler["cfg"]) == (demo_drawing.STEPS, demo_drawing.CFG)
    assert (sampler["sampler_name"], sampler["scheduler"]) == (demo_drawing.SAMPLER, demo_drawing.SCHEDULER)

    prompt["4"]["inputs"]["ckpt_name"] = "absent.safetensors"  # the rest needs no model folder
    valid, _error, outputs, node_errors = asyncio.run(execution.validate_prompt("id", prompt, None))
    assert not valid and list(node_errors) == ["4"], node_errors
    assert outputs == []
