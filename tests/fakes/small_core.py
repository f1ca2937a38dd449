"""A ComfyUI of a few lines, with every place that the series needs in upstream's files."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "pyproject.toml": '[project]\nname = "ComfyUI"\n',
    "comfyui_version.py": '__version__ = "0.33.0"\n',
    "comfy/__init__.py": "",
    "comfy/cli_args.py": """import argparse

parser = argparse.ArgumentParser()
args = parser.parse_args([])
""",
    "folder_paths.py": '''"""Where models are."""
from __future__ import annotations

import os

folder_names_and_paths = {}
filename_list_cache = {}


def map_legacy(folder_name):
    return folder_name


def recursive_search(directory, excluded_dir_names=None):
    """Every file below a folder."""
    return sorted(os.listdir(directory)), {}


def get_full_path(folder_name, filename):
    return os.path.join(folder_name, filename)


def get_full_path_or_raise(folder_name, filename):
    return get_full_path(folder_name, filename)


def cached_filename_list_(folder_name):
    return None
''',
    "app/model_manager.py": '''import os


class ModelFileManager:
    def get_model_file_list(self, folder_name):
        return [os.sep]
''',
    "comfy/utils.py": """import os


def load_torch_file(ckpt, safe_load=False):
    return os.stat(ckpt)
""",
    "comfy/sd1_clip.py": """import os


def load_embed(embedding_name, embedding_directory, embedding_size):
    return os.stat(embedding_name)
""",
    "comfy/clip_vision.py": "import os\n\n\ndef load(ckpt_path):\n    return os.stat(ckpt_path)\n",
    "comfy/model_management.py": '''import os

current_loaded_models = []


class LoadedModel:
    def model_unload(self, memory_to_free=None):
        return True


def free_memory(memory_required, device, keep_loaded=()):
    return []


def load_models_gpu(models, memory_required=0):
    return os.sep
''',
    "comfy/sd.py": '''import os


def load_clip(ckpt_paths, clip_type=None):
    return [os.stat(path) for path in ckpt_paths]


def load_checkpoint_guess_config(ckpt_path, output_vae=True):
    return os.stat(ckpt_path)


def load_diffusion_model(unet_path):
    return os.stat(unet_path)
''',
    "nodes.py": """import os


class VAELoader:
    def load_vae(self, vae_name):
        return (os.stat(vae_name),)
""",
    "execution.py": '''import asyncio


class IsChangedCache:
    async def get(self, node_id):
        return False


class PromptExecutor:
    def __init__(self):
        self.reset()

    def reset(self):
        self.history_result = {}

    def execute(self, prompt, prompt_id, extra_data={}, execute_outputs=[]):
        asyncio.run(self.execute_async(prompt, prompt_id))

    async def execute_async(self, prompt, prompt_id):
        pass
''',
    "server.py": '''import asyncio


class PromptServer:
    def __init__(self):
        self.routes = []

    def add_routes(self):
        """Mount them."""
        return self.routes

    def queue_updated(self):
        self.send_sync("status", asyncio)

    def send_sync(self, event, data):
        pass

    def trigger_on_prompt(self, json_data):
        return json_data
''',
    "main.py": '''import sys

import folder_paths


def start_comfyui(asyncio_loop=None):
    return folder_paths.get_full_path("checkpoints", "a")


if __name__ == "__main__":
    print(start_comfyui(), sys.argv[1:])
    sys.exit(7)
''',
}


def write_small_core(folder: Path) -> Path:
    """Write it into a folder, which is returned."""
    for path, text in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8", newline="")
    return folder
