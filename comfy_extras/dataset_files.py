"""Nodes that read and write folders of pictures, videos and captions. `nodes_dataset` registers them."""

from __future__ import annotations

import logging
import os

import folder_paths
from comfy_api.latest import InputImpl, io

log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".webm", ".mkv", ".flv")


def inside(root, name):
    """The path of a folder below a root. ValueError for names that lead out of it."""
    path = os.path.abspath(os.path.join(root, name))
    if not folder_paths.is_within_directory(root, path):
        raise ValueError(
            f"The folder name {name!r} leads out of {root}. Use the name of a folder inside of it."
        )
    return path


def _files(folder, suffixes):
    """Paths of the files of a kind, sorted by name. ValueError if there are none."""
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(suffixes))
    return [os.path.join(folder, name) for name in names]


def _required(files, folder, suffixes):
    if not files:
        raise ValueError(
            f"There is no file in {folder} that ends with {', '.join(suffixes)}. Choose another folder."
        )
    return files


def _repeated_files(folder, suffixes):
    """Files of a folder and of its subfolders; one named "10_cats" counts ten times, as with kohya."""
    files = _files(folder, suffixes)
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            number = name.split("_")[0]
            files += _files(path, suffixes) * (int(number) if number.isdecimal() else 1)
    return files


def _captions(files):
    """The text beside each file, "" where there is none."""
    captions = []
    for path in files:
        beside = os.path.splitext(path)[0] + ".txt"
        text = ""
        if os.path.isfile(beside):
            with open(beside, encoding="utf-8") as file:
                text = file.read().strip()
        captions.append(text)
    return captions


def _pictures(files):
    from comfy.picture_files import load_picture

    return [load_picture(path)[0][:1] for path in files]


def _folder_input():
    return io.Combo.Input(
        "folder", options=folder_paths.get_input_subfolders(), tooltip="A folder inside of the input folder."
    )


def _input_folder(name):
    return inside(folder_paths.get_input_directory(), name)


class LoadImageDataSetFromFolderNode(io.ComfyNode):
    """The pictures of a folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadImageDataSetFromFolder",
            display_name="Load Image (from Folder)",
            category="image",
            description="Loads the pictures of a folder as a list (PNG, JPEG, WEBP).",
            search_aliases=[
                "load folder",
                "load from folder",
                "load dataset",
                "load images",
                "import dataset",
            ],
            inputs=[
                _folder_input(),
            ],
            outputs=[io.Image.Output(display_name="images", is_output_list=True)],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, folder):
        path = _input_folder(folder)
        return io.NodeOutput(_pictures(_required(_files(path, PICTURES), path, PICTURES)))


class LoadImageTextDataSetFromFolderNode(io.ComfyNode):
    """The pictures of a folder and what is written beside them."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadImageTextDataSetFromFolder",
            display_name="Load Image-Text (from Folder)",
            category="image",
            description="Loads pictures and the texts beside them. Subfolders like 10_cats count ten times.",
            search_aliases=[
                "load folder",
                "load from folder",
                "load dataset",
                "load images",
                "import dataset",
            ],
            inputs=[
                _folder_input(),
            ],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True),
                io.String.Output(display_name="texts", is_output_list=True),
            ],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, folder):
        path = _input_folder(folder)
        files = _required(_repeated_files(path, PICTURES), path, PICTURES)
        return io.NodeOutput(_pictures(files), _captions(files))


class LoadVideoDataSetFromFolderNode(io.ComfyNode):
    """The videos of a folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadVideoDataSetFromFolder",
            display_name="Load Video (from Folder)",
            category="video",
            description="Lists the videos of a folder; they are decoded when they are used.",
            search_aliases=[
                "load folder",
                "load from folder",
                "load dataset",
                "load videos",
                "import dataset",
            ],
            inputs=[
                _folder_input(),
            ],
            outputs=[io.Video.Output(display_name="videos", is_output_list=True)],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, folder):
        path = _input_folder(folder)
        files = _required(_files(path, VIDEOS), path, VIDEOS)
        return io.NodeOutput([InputImpl.VideoFromFile(file) for file in files])


class LoadVideoTextDataSetFromFolderNode(io.ComfyNode):
    """The videos of a folder and what is written beside them."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadVideoTextDataSetFromFolder",
            display_name="Load Video-Text (from Folder)",
            category="video",
            description="Lists videos and the texts beside them. Subfolders such as 10_cats count ten times.",
            search_aliases=[
                "load folder",
                "load from folder",
                "load dataset",
                "load videos",
                "import dataset",
            ],
            inputs=[
                _folder_input(),
            ],
            outputs=[
                io.Video.Output(display_name="videos", is_output_list=True),
                io.String.Output(display_name="texts", is_output_list=True),
            ],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, folder):
        path = _input_folder(folder)
        files = _required(_repeated_files(path, VIDEOS), path, VIDEOS)
        return io.NodeOutput([InputImpl.VideoFromFile(file) for file in files], _captions(files))


def _save_pictures(images, folder_name, prefix, mode):
    """Paths of the PNG files that were written, one per picture of each batch."""
    from comfy.picture_files import save_png

    folder = inside(folder_paths.get_output_directory(), folder_name)
    stem = prefix
    if mode == "increment":
        _, _, number, _, stem = folder_paths.get_save_image_path(prefix, folder)
        stem = f"{stem}_{number:05}"
    paths = []
    for index, picture in enumerate(picture for batch in images for picture in batch):
        path = inside(folder, f"{stem}_{index:05}.png")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        save_png(picture, path, None, 4)
        paths.append(path)
    log.info("%d pictures are saved in %s.", len(paths), folder)
    return paths


class SaveImageDataSetToFolderNode(io.ComfyNode):
    """Pictures into a folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveImageDataSetToFolder",
            display_name="Save Image (to Folder) (DEPRECATED)",
            category="image",
            description="Saves a list of pictures as PNG files in a folder.",
            search_aliases=["save folder", "save to folder", "save dataset", "save images", "export dataset"],
            inputs=[
                io.Image.Input("images"),
                io.String.Input(
                    "folder_name", default="dataset", tooltip="A folder inside of the output folder."
                ),
                io.String.Input("filename_prefix", default="image", advanced=True),
                io.Combo.Input(
                    "mode",
                    options=["overwrite", "increment"],
                    default="overwrite",
                    tooltip="Replace files of the same name, or take new numbers.",
                ),
            ],
            outputs=[],
            is_output_node=True,
            is_input_list=True,
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, folder_name, filename_prefix, mode):
        _save_pictures(images, folder_name[0], filename_prefix[0], mode[0])
        return io.NodeOutput()


class SaveImageTextDataSetToFolderNode(io.ComfyNode):
    """Pictures and texts into a folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveImageTextDataSetToFolder",
            display_name="Save Image-Text (to Folder)",
            category="image",
            description="Saves a list of pictures as PNG files, and their texts beside them.",
            search_aliases=[
                "save folder",
                "save to folder",
                "save dataset",
                "save images",
                "save text",
                "export dataset",
            ],
            inputs=[
                io.Image.Input("images"),
                io.String.Input("texts", force_input=True, optional=True),
                io.String.Input(
                    "folder_name", default="dataset", tooltip="A folder inside of the output folder."
                ),
                io.String.Input("filename_prefix", default="image", advanced=True),
                io.Combo.Input(
                    "mode",
                    options=["overwrite", "increment"],
                    default="overwrite",
                    tooltip="Replace files of the same name, or take new numbers.",
                ),
            ],
            outputs=[],
            is_output_node=True,
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, folder_name, filename_prefix, mode, texts=None):
        paths = _save_pictures(images, folder_name[0], filename_prefix[0], mode[0])
        for path, text in zip(paths, texts or []):
            with open(os.path.splitext(path)[0] + ".txt", "w", encoding="utf-8") as file:
                file.write(text)
        return io.NodeOutput()
