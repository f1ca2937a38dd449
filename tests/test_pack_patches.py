"""Node packs replace functions on modules: whoever calls such a function looks it up each time."""

import pytest

import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import latent_preview


class Patched(Exception):
    """The replaced function was called."""


def raise_patched(*args, **kwargs):
    raise Patched


class Model:
    load_device = "cpu"
    model_options = None

    class model:  # noqa: N801
        latent_format = None


def draw():
    return comfy.sample.sample_custom(Model(), None, 1.0, None, None, None, None, None)


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (comfy.utils, "load_torch_file", lambda: comfy.sd.load_checkpoint_guess_config("x.safetensors")),
        (comfy.utils, "load_torch_file", lambda: comfy.sd.load_diffusion_model("x.safetensors")),
        (latent_preview, "get_previewer", lambda: latent_preview.prepare_callback(Model(), 1)),
        (comfy.samplers, "sample", draw),
    ],
)
def test_a_replaced_function_is_the_one_that_is_called(monkeypatch, module, name, call):
    monkeypatch.setattr(module, name, raise_patched)
    with pytest.raises(Patched):
        call()
