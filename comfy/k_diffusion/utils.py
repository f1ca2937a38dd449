"""Small helpers that samplers and node packs share."""

from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image


def append_dims(x, target_dims):
    """Add trailing dimensions of size one until `x` has `target_dims` of them."""
    missing = target_dims - x.ndim
    if missing < 0:
        raise ValueError(f"The tensor has {x.ndim} dimensions, more than the {target_dims} asked for.")
    return x[(...,) + (None,) * missing]


class FolderOfImages(torch.utils.data.Dataset):
    """The pictures below a folder, in order of their paths, each in a tuple; `transform` gets a PIL image."""

    IMG_EXTENSIONS: ClassVar = {
        ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"
    }  # fmt: skip

    def __init__(self, root, transform=None):
        self.root, self.transform = Path(root), transform
        files = (path for path in self.root.rglob("*") if path.suffix.lower() in self.IMG_EXTENSIONS)
        self.paths = sorted(files)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with Image.open(self.paths[index]) as file:
            picture = file.convert("RGB")
        return (picture if self.transform is None else self.transform(picture),)
