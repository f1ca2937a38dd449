"""Which device a model computes on."""

from __future__ import annotations

import logging

from comfy_api.latest import ComfyExtension, io


def _accelerators() -> list[str]:
    """`gpu:0`, `gpu:1`, ... where there are several; asked without starting a device."""
    import sys

    torch = sys.modules.get("torch")  # a list of nodes does not import it
    if torch is None or not torch.cuda.is_available() or torch.cuda.device_count() < 2:
        return []
    return [f"gpu:{number}" for number in range(torch.cuda.device_count())]


def _device_of(name: str):
    """(the device or None, is it known here?)"""
    import torch

    if name == "cpu":
        return torch.device("cpu"), True
    if name in _accelerators():
        return torch.device("cuda", int(name.partition(":")[2])), True
    return None, name == "default"


def _placed(patcher, name: str, title: str):
    """A clone that computes on this device. The first devices are kept, for `default`."""
    device, is_known = _device_of(name)
    clone = patcher.clone()
    first = patcher.get_attachment("first_devices") or (patcher.load_device, patcher.offload_device)
    clone.set_attachments("first_devices", first)
    if not is_known:
        logging.warning("%s: there is no device '%s' here, the model stays where it is.", title, name)
        return clone
    clone.load_device, clone.offload_device = first
    if device is not None:
        clone.load_device = device
        clone.offload_device = device if device.type == "cpu" else first[1]
    return clone


def _device_input(*, has_cpu: bool):
    places = ["default", *(["cpu"] if has_cpu else []), *_accelerators()]
    return io.Combo.Input(
        "device", options=places, tooltip="default is what the server chose; cpu spares the GPU's memory."
    )


class _SelectDevice(io.ComfyNode):
    @classmethod
    def validate_inputs(cls, device="default"):
        return True  # a workflow of a machine with more devices runs here too


class SelectModelDevice(_SelectDevice):
    """Of the diffusion model."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SelectModelDevice",
            display_name="Select Model Device",
            category="advanced/multigpu",
            description="Where the diffusion model computes. A device that is not here is passed over.",
            inputs=[io.Model.Input("model"), _device_input(has_cpu=True)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, device="default"):
        return io.NodeOutput(_placed(model, device, "Select Model Device"))


class SelectCLIPDevice(_SelectDevice):
    """Of the text encoders."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SelectCLIPDevice",
            display_name="Select CLIP Device",
            category="advanced/multigpu",
            description="Where the text encoders compute. A device that is not here is passed over.",
            inputs=[io.Clip.Input("clip"), _device_input(has_cpu=True)],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, clip, device="default"):
        clone = clip.clone()
        clone.patcher = _placed(clip.patcher, device, "Select CLIP Device")
        return io.NodeOutput(clone)


class SelectVAEDevice(_SelectDevice):
    """Of the VAE."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SelectVAEDevice",
            display_name="Select VAE Device",
            category="advanced/multigpu",
            description="Where the VAE computes. A device that is not here is passed over.",
            inputs=[io.Vae.Input("vae"), _device_input(has_cpu=False)],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, vae, device="default"):
        import copy

        clone = copy.copy(vae)
        clone.patcher = _placed(vae.patcher, device, "Select VAE Device")
        clone.device = clone.patcher.load_device
        return io.NodeOutput(clone)


class MultiGPU_WorkUnits(io.ComfyNode):  # noqa: N801 - a name that workflows use
    """Both sides of guidance on devices of their own."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MultiGPU_WorkUnits",
            display_name="MultiGPU CFG Split",
            category="advanced/multigpu",
            description="For several GPUs at once; this version computes a run on one.",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("max_gpus", default=2, min=1, step=1, tooltip="How many GPUs may be used."),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, max_gpus):
        if max_gpus > 1 and _accelerators():
            logging.warning(
                "MultiGPU CFG Split: this version computes a run on one GPU; %s is used.", model.load_device
            )
        return io.NodeOutput(model.clone())


class MultiGPUExtension(ComfyExtension):
    async def get_node_list(self):
        return [MultiGPU_WorkUnits, SelectModelDevice, SelectCLIPDevice, SelectVAEDevice]


async def comfy_entrypoint():
    return MultiGPUExtension()
