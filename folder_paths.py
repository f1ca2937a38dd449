"""Where models, inputs, outputs and users' files live, and which files are there.

Node packs read and change this module's globals (`folder_names_and_paths`, `supported_pt_extensions`,
`models_dir`, ...), so they are plain module globals here too. They are set from `comfy.cli_args.args` at
import, which holds the defaults then, and again by `apply_arguments()` when `main` has read the command line.

The lines that name `depot.` let a model that is only in a manifest stand in the lists and arrive when a node
asks for its path.
"""

from __future__ import annotations

import argparse
import logging
import mimetypes
import os
import re
import time
from collections.abc import Callable, Collection
from typing import Literal

from comfy.cli_args import args
from comfy_depot import hooks as depot

log = logging.getLogger(__name__)

FileList = tuple[list[str], dict[str, float], float]
"""Relative file names, the modification time of every folder seen, `time.perf_counter()` of the listing."""

supported_pt_extensions: set[str] = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}

folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {}
filename_list_cache: dict[str, FileList] = {}
extension_mimetypes_cache = {"webp": "image", "fbx": "model"}

base_path = ""
models_dir = ""
output_directory = ""
temp_directory = ""
input_directory = ""
user_directory = ""

chooses_number: Callable[[str, str, int], int] | None = None
"""`(folder, name, free number) -> number` for each file to be saved. The server sets it, so that a prompt
which runs again after a crash takes the numbers it had."""

SYSTEM_USER_PREFIX = "__"
"""Users whose name starts so are the program's own: HTTP never reaches their folders."""

DANGEROUS_CONTENT_TYPES = {
    "text/html", "text/html-sandboxed", "application/xhtml+xml", "message/rfc822", "text/css",
    "image/svg+xml", "text/javascript", "application/javascript", "application/x-javascript",
    "application/ecmascript", "application/xml", "text/xml",
}

# The folder types with the usual model extensions, and their folders under models/. The order of folders
# decides which of two files of one name is taken.
_MODEL_FOLDERS: dict[str, tuple[str, ...]] = {
    "checkpoints": ("checkpoints",),
    "loras": ("loras",),
    "vae": ("vae",),
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "clip_vision": ("clip_vision",),
    "style_models": ("style_models",),
    "embeddings": ("embeddings",),
    "vae_approx": ("vae_approx",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "gligen": ("gligen",),
    "upscale_models": ("upscale_models",),
    "latent_upscale_models": ("latent_upscale_models",),
    "hypernetworks": ("hypernetworks",),
    "photomaker": ("photomaker",),
    "model_patches": ("model_patches",),
    "audio_encoders": ("audio_encoders",),
    "background_removal": ("background_removal",),
    "frame_interpolation": ("frame_interpolation",),
    "geometry_estimation": ("geometry_estimation",),
    "optical_flow": ("optical_flow",),
    "detection": ("detection",),
}
_LEGACY_NAMES = {"unet": "diffusion_models", "clip": "text_encoders"}
# What a workflow saves under the output folder can be loaded again.
_SAVED_MODELS = {
    "checkpoints": "checkpoints",
    "text_encoders": "clip",
    "vae": "vae",
    "diffusion_models": "diffusion_models",
    "loras": "loras",
}


class CacheHelper:
    """Keeps file lists for the length of a `with` block, so that one request looks at each folder once."""

    def __init__(self) -> None:
        self.cache: dict[str, FileList] = {}
        self.active = False

    def get(self, key: str, default: FileList | None = None) -> FileList | None:
        return self.cache.get(key, default) if self.active else default

    def set(self, key: str, value: FileList) -> None:
        if self.active:
            self.cache[key] = value

    def clear(self) -> None:
        self.cache.clear()

    def __enter__(self) -> CacheHelper:
        self.active = True
        return self

    def __exit__(self, exc_type: object, exc_value: object, traceback: object) -> None:
        self.active = False
        self.clear()


cache_helper = CacheHelper()


def apply_arguments(arguments: argparse.Namespace) -> None:
    """Set every folder from the command line; what packs or a yaml file added before is forgotten."""
    _place_base(arguments)
    _place_models()
    _place_working_folders(arguments)
    for folder_name, subfolder in _SAVED_MODELS.items():
        add_model_folder_path(folder_name, os.path.join(output_directory, subfolder))
    filename_list_cache.clear()
    cache_helper.clear()


def create_working_folders() -> None:
    """Make the input, output, temp and user folders where they are missing."""
    for directory in (input_directory, output_directory, temp_directory, user_directory):
        os.makedirs(directory, exist_ok=True)


def _place_base(arguments: argparse.Namespace) -> None:
    global base_path, models_dir
    given_base = getattr(arguments, "base_directory", None)
    base_path = os.path.abspath(given_base) if given_base else os.path.dirname(os.path.realpath(__file__))
    given_models = getattr(arguments, "models_directory", None)
    models_dir = os.path.abspath(given_models) if given_models else os.path.join(base_path, "models")


def _place_models() -> None:
    folder_names_and_paths.clear()
    for folder_name, subfolders in _MODEL_FOLDERS.items():
        paths = [os.path.join(models_dir, subfolder) for subfolder in subfolders]
        folder_names_and_paths[folder_name] = (paths, supported_pt_extensions)
    folder_names_and_paths["configs"] = ([os.path.join(models_dir, "configs")], {".yaml"})
    # Vocabularies of text encoders, which upstream carries in its own tree.
    folder_names_and_paths["tokenizers"] = (
        [os.path.join(models_dir, "tokenizers")], {".json", ".model", ".txt"}
    )
    folder_names_and_paths["diffusers"] = ([os.path.join(models_dir, "diffusers")], {"folder"})
    folder_names_and_paths["classifiers"] = ([os.path.join(models_dir, "classifiers")], {""})
    folder_names_and_paths["custom_nodes"] = ([os.path.join(base_path, "custom_nodes")], set())
    folder_names_and_paths["datasets"] = ([os.path.join(base_path, "datasets")], set())


def _place_working_folders(arguments: argparse.Namespace) -> None:
    global output_directory, temp_directory, input_directory, user_directory

    def place(option: str, name: str) -> str:
        given = getattr(arguments, option, None)
        return os.path.abspath(given) if given else os.path.join(base_path, name)

    output_directory = place("output_directory", "output")
    input_directory = place("input_directory", "input")
    user_directory = place("user_directory", "user")
    # The temp folder is emptied at start, so a given folder is never used itself: "temp" is made inside it.
    given_temp = getattr(arguments, "temp_directory", None)
    temp_directory = os.path.join(os.path.abspath(given_temp or base_path), "temp")


def map_legacy(folder_name: str) -> str:
    """The present name of a folder type that once had another one."""
    return _LEGACY_NAMES.get(folder_name, folder_name)


def set_output_directory(output_dir: str) -> None:
    global output_directory
    output_directory = output_dir


def set_temp_directory(temp_dir: str) -> None:
    global temp_directory
    temp_directory = temp_dir


def set_input_directory(input_dir: str) -> None:
    global input_directory
    input_directory = input_dir


def set_user_directory(user_dir: str) -> None:
    global user_directory
    user_directory = user_dir


def get_output_directory() -> str:
    return output_directory


def get_temp_directory() -> str:
    return temp_directory


def get_input_directory() -> str:
    return input_directory


def get_user_directory() -> str:
    return user_directory


def get_system_user_directory(name: str = "system") -> str:
    """The folder of a system user: the program's own files, out of reach of every HTTP route."""
    if not isinstance(name, str) or not name:
        raise ValueError("A system user needs a name, such as 'system'.")
    if name.startswith("_"):
        raise ValueError(f"System user '{name}': leave out the leading underscore, it is added here.")
    if not name.replace("_", "").isalnum():
        raise ValueError(f"System user '{name}': only letters, digits and underscores may be in the name.")
    return os.path.join(user_directory, SYSTEM_USER_PREFIX + name)


def get_public_user_directory(user_id: str) -> str | None:
    """The folder of a user whom HTTP may name; None for system users and for what is no plain name."""
    if not isinstance(user_id, str) or not user_id or user_id.startswith(SYSTEM_USER_PREFIX):
        return None
    if user_id in (".", "..") or any(letter in user_id for letter in "/\\\0"):
        return None
    return os.path.join(get_user_directory(), user_id)


def get_directory_by_type(type_name: str) -> str | None:
    """The output, temp or input folder; None for any other name, since HTTP asks with this."""
    if type_name == "output":
        return get_output_directory()
    if type_name == "temp":
        return get_temp_directory()
    if type_name == "input":
        return get_input_directory()
    return None


def filter_files_content_types(
    files: list[str], content_types: list[Literal["image", "video", "audio", "model"]]
) -> list[str]:
    """The files whose name promises one of the content types; "model" is a 3D model, not weights."""
    kept = []
    for file in files:
        extension = file.rpartition(".")[2]
        if extension not in extension_mimetypes_cache:
            guessed, _ = mimetypes.guess_type(file, strict=False)
            if guessed is None:
                continue
            extension_mimetypes_cache[extension] = guessed.partition("/")[0]
        if extension_mimetypes_cache[extension] in content_types:
            kept.append(file)
    return kept


def is_dangerous_content_type(content_type: str | None) -> bool:
    """Whether a browser could run or render this inline; routes serve such a file as a download only."""
    if not content_type:
        return False
    plain = content_type.partition(";")[0].strip().lower()
    return plain in DANGEROUS_CONTENT_TYPES or plain.endswith(("+xml", "/xml"))


def renders_safely_as_image(content_type: str | None, sec_fetch_dest: str | None) -> bool:
    """Whether an SVG is asked for by an <img>, where browsers run no script; no script sets the header."""
    plain = (content_type or "").partition(";")[0].strip().lower()
    return sec_fetch_dest == "image" and plain == "image/svg+xml"


def is_within_directory(directory: str, target: str) -> bool:
    """Whether `target`, with its symbolic links followed, lies inside `directory`."""
    try:
        real_directory = os.path.realpath(directory)
        return os.path.commonpath((real_directory, os.path.realpath(target))) == real_directory
    except ValueError:  # a NUL in the name, or two drives
        return False


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """("cat.png", folder) from "cat.png [output]"; the folder is None where the name says none."""
    for type_name in ("output", "input", "temp"):
        mark = f"[{type_name}]"
        if name.endswith(mark):
            return name[: -len(mark) - 1], get_directory_by_type(type_name)
    return name, None


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    """The path of an annotated name; ValueError when it would leave its folder."""
    path = _annotated_path(name, default_dir)
    if path is None:
        raise ValueError(f"Invalid file path: {name!r}. Name a file inside the input, output or temp folder.")
    return path


def exists_annotated_filepath(name: str) -> bool:
    """Whether the file of an annotated name is there."""
    path = _annotated_path(name, None)
    return path is not None and os.path.exists(path)


def _annotated_path(name: str, default_dir: str | None) -> str | None:
    plain_name, directory = annotated_filepath(name)
    directory = directory or default_dir or get_input_directory()
    path = os.path.abspath(os.path.join(directory, plain_name))
    return path if is_within_directory(directory, path) else None


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Look for models of a type in one more folder; a default one comes first and gets what is fetched."""
    folder_name = map_legacy(folder_name)
    paths, _ = folder_names_and_paths.setdefault(folder_name, ([], set()))
    if is_default:
        if full_folder_path in paths:
            paths.remove(full_folder_path)
        paths.insert(0, full_folder_path)
    elif full_folder_path not in paths:
        paths.append(full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    """The folders of a folder type, as a list of the caller's own."""
    return list(folder_names_and_paths[map_legacy(folder_name)][0])


@depot.adds_manifest_names
def recursive_search(
    directory: str, excluded_dir_names: list[str] | None = None
) -> tuple[list[str], dict[str, float]]:
    """Every file under a folder, by relative name, and the modification time of each folder on the way."""
    if not os.path.isdir(directory):
        return [], {}
    excluded = excluded_dir_names or []
    names: list[str] = []
    times: dict[str, float] = {}
    for path, subfolders, files in os.walk(directory, followlinks=True):
        subfolders[:] = [subfolder for subfolder in subfolders if subfolder not in excluded]
        try:
            times[path] = os.path.getmtime(path)
        except OSError as error:
            log.warning("Folder %s cannot be read and is left out: %s", path, error)
        relative = os.path.relpath(path, directory)
        names.extend(files if relative == os.curdir else (os.path.join(relative, file) for file in files))
    return names, times


def filter_files_extensions(files: Collection[str], extensions: Collection[str]) -> list[str]:
    """The sorted files with one of the extensions; all of them where no extension is asked for."""
    if not extensions:
        return sorted(files)
    ends = tuple(extension for extension in extensions if extension.rfind(".") == 0)
    if len(ends) == len(extensions):  # of 100,000 files most are decided by their end alone
        ending_so = [file for file in files if file.lower().endswith(ends)]
        if not any(file[0] == "." or os.sep + "." in file for file in ending_so):  # ".ckpt" is a name
            return sorted(ending_so)
        files = ending_so
    return sorted(file for file in files if os.path.splitext(file)[1].lower() in extensions)


@depot.fetches_in_nodes
def get_full_path(folder_name: str, filename: str) -> str | None:
    """The path of a model file, or None. A name cannot leave the folders of its type."""
    folder_name = map_legacy(folder_name)
    if folder_name not in folder_names_and_paths:
        return None
    inside = os.path.relpath(os.path.join(os.sep, filename), os.sep)
    for directory in folder_names_and_paths[folder_name][0]:
        path = os.path.join(directory, inside)
        if os.path.isfile(path):
            return path
        if os.path.islink(path):
            log.warning("%s is a link to a file that is not there. It is passed over.", path)
    return None


@depot.explains_missing
def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    """The path of a model file; FileNotFoundError when there is none."""
    path = get_full_path(folder_name, filename)
    if path is None:
        raise FileNotFoundError(f"Model in folder '{folder_name}' with filename '{filename}' not found.")
    return path


def get_filename_list_(folder_name: str) -> FileList:
    """Look through the folders of a type, past every cache."""
    paths, extensions = folder_names_and_paths[map_legacy(folder_name)]
    names: set[str] = set()
    times: dict[str, float] = {}
    for directory in list(paths):
        files, directory_times = recursive_search(directory, excluded_dir_names=[".git"])
        names.update(filter_files_extensions(files, extensions))
        times.update(directory_times)
    return sorted(names), times, time.perf_counter()


@depot.keeps_lists_fresh
def cached_filename_list_(folder_name: str) -> FileList | None:
    """The list from the cache while no folder has changed, else None."""
    folder_name = map_legacy(folder_name)
    kept = cache_helper.get(folder_name)
    if kept is not None:
        return kept
    listed = filename_list_cache.get(folder_name)
    return listed if listed is not None and _is_unchanged(folder_name, listed) else None


def _is_unchanged(folder_name: str, listed: FileList) -> bool:
    times = listed[1]
    try:
        if any(os.path.getmtime(directory) != seen for directory, seen in times.items()):
            return False
    except OSError:  # a folder that was listed is gone
        return False
    return all(path in times for path in folder_names_and_paths[folder_name][0] if os.path.isdir(path))


def get_filename_list(folder_name: str) -> list[str]:
    """The names of the models of a type, sorted: what a combo shows."""
    folder_name = map_legacy(folder_name)
    listed = cached_filename_list_(folder_name)
    if listed is None:
        listed = get_filename_list_(folder_name)
        filename_list_cache[folder_name] = listed
    cache_helper.set(folder_name, listed)
    return list(listed[0])


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """(folder, name, next number, subfolder, prefix) for `folder/name_00001_.png`; makes the folder."""
    if "%" in filename_prefix:
        filename_prefix = _fill_placeholders(filename_prefix, image_width, image_height)
    subfolder, filename = os.path.split(os.path.normpath(filename_prefix))
    full_output_folder = os.path.join(output_dir, subfolder)
    if not is_within_directory(output_dir, full_output_folder):
        raise ValueError(
            f"Saving outside the output folder is not allowed: '{filename_prefix}' leads to "
            f"{os.path.abspath(full_output_folder)}. Choose a prefix that stays inside {output_dir}."
        )
    os.makedirs(full_output_folder, exist_ok=True)
    counter = _next_number(full_output_folder, filename)
    if chooses_number is not None:
        counter = chooses_number(full_output_folder, filename, counter)
    return full_output_folder, filename, counter, subfolder, filename_prefix


def _fill_placeholders(text: str, image_width: int, image_height: int) -> str:
    now = time.localtime()
    values = {"width": str(image_width), "height": str(image_height), "year": str(now.tm_year)}
    values |= {"month": f"{now.tm_mon:02d}", "day": f"{now.tm_mday:02d}", "hour": f"{now.tm_hour:02d}"}
    values |= {"minute": f"{now.tm_min:02d}", "second": f"{now.tm_sec:02d}"}
    for name, value in values.items():
        text = text.replace(f"%{name}%", value)
    return text


def _next_number(directory: str, filename: str) -> int:
    """One more than the highest number after "filename_" in a folder."""
    wanted = os.path.normcase(filename)
    highest = 0
    for name in os.listdir(directory):
        if os.path.normcase(name[: len(filename)]) != wanted:
            continue
        number = re.match(r"_(\d+)(?:[_.]|$)", name[len(filename):])
        highest = max(highest, int(number.group(1)) if number else 0)
    return highest + 1


def get_input_subfolders() -> list[str]:
    """Every folder inside the input folder, relative to it, with "/" on every system."""
    root = get_input_directory()
    found = (os.path.relpath(path, root) for path, _, _ in os.walk(root))
    return sorted(path.replace(os.sep, "/") for path in found if path != os.curdir)


# Packs read the folders as soon as they import this module, before and without main().
apply_arguments(args)
