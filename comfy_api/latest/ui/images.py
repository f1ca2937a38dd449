"""Saving pictures (B, H, W, C) with the workflow in them."""

from __future__ import annotations

import os
from typing import Any

import folder_paths
from comfy_api.latest.io.options import FolderType
from comfy_api.latest.ui.results import SavedImages, SavedResult, directory_of, metadata_of

EXIF_MODEL, EXIF_MAKE = 0x0110, 0x010F
ANIMATION_CHUNK = b"comf"  # where animated PNG files keep the workflow: it must come after the first frame


class _Place:
    """Where the files of one save go: their folder, the stem of their names, the next free number."""

    def __init__(self, prefix: str, folder_type: FolderType, images: Any) -> None:
        height, width = images[0].shape[:2]
        self.folder, self.stem, self.number, self.subfolder, _ = folder_paths.get_save_image_path(
            prefix, directory_of(folder_type), width, height
        )
        self.folder_type = folder_type

    def next(self, suffix: str, batch_number: int | None = None) -> tuple[str, SavedResult]:
        """(path, what is told of it) of the next file."""
        stem = self.stem if batch_number is None else self.stem.replace("%batch_num%", str(batch_number))
        name = f"{stem}_{self.number:05}_.{suffix}"
        self.number += 1
        return os.path.join(self.folder, name), SavedResult(name, self.subfolder, self.folder_type)


class ImageSaveHelper:
    """Saves pictures. `cls` is what `execute` gets: the files carry its hidden values. It may be None."""

    @staticmethod
    def _convert_tensor_to_pil(image_tensor: Any) -> Any:
        import numpy
        from PIL import Image

        values = (image_tensor.cpu().float().numpy() * 255.0).clip(0, 255).astype(numpy.uint8)
        return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)

    @staticmethod
    def _create_png_metadata(cls: Any) -> Any:
        from PIL.PngImagePlugin import PngInfo

        metadata = metadata_of(cls)
        if not metadata:
            return None
        info = PngInfo()
        for key, value in metadata.items():
            info.add_text(key, value)
        return info

    @staticmethod
    def _create_animated_png_metadata(cls: Any) -> Any:
        from PIL.PngImagePlugin import PngInfo

        metadata = metadata_of(cls)
        if not metadata:
            return None
        info = PngInfo()
        for key, value in metadata.items():
            info.add(ANIMATION_CHUNK, f"{key}\0{value}".encode("latin-1"), after_idat=True)
        return info

    @staticmethod
    def _create_webp_metadata(pil_image: Any, cls: Any) -> Any:
        exif = pil_image.getexif()
        metadata = metadata_of(cls)
        if "prompt" in metadata:
            exif[EXIF_MODEL] = f"prompt:{metadata.pop('prompt')}"
        for tag, (key, value) in zip(range(EXIF_MAKE, 0, -1), metadata.items()):
            exif[tag] = f"{key}:{value}"
        return exif

    @staticmethod
    def save_images(
        images: Any, filename_prefix: str, folder_type: FolderType, cls: Any = None, compress_level: int = 4
    ) -> list[SavedResult]:
        """Save each as a PNG file."""
        place = _Place(filename_prefix, folder_type, images)
        metadata = ImageSaveHelper._create_png_metadata(cls)
        results = []
        for number, image in enumerate(images):
            path, result = place.next("png", number)
            picture = ImageSaveHelper._convert_tensor_to_pil(image)
            picture.save(path, pnginfo=metadata, compress_level=compress_level)
            results.append(result)
        return results

    @staticmethod
    def get_save_images_ui(
        images: Any, filename_prefix: str, cls: Any = None, compress_level: int = 4
    ) -> SavedImages:
        """Save each as a PNG file in the output folder, and show them."""
        return SavedImages(
            ImageSaveHelper.save_images(images, filename_prefix, FolderType.output, cls, compress_level)
        )

    @staticmethod
    def save_animated_png(
        images: Any, filename_prefix: str, folder_type: FolderType, cls: Any, fps: float, compress_level: int
    ) -> SavedResult:
        """Save all as the frames of one PNG file."""
        path, result = _Place(filename_prefix, folder_type, images).next("png")
        metadata = ImageSaveHelper._create_animated_png_metadata(cls)
        _save_frames(images, path, fps, pnginfo=metadata, compress_level=compress_level)
        return result

    @staticmethod
    def get_save_animated_png_ui(
        images: Any, filename_prefix: str, cls: Any, fps: float, compress_level: int
    ) -> SavedImages:
        """The same in the output folder, and show it."""
        result = ImageSaveHelper.save_animated_png(
            images, filename_prefix, FolderType.output, cls, fps, compress_level
        )
        return SavedImages([result], is_animated=len(images) > 1)

    @staticmethod
    def save_animated_webp(
        images: Any,
        filename_prefix: str,
        folder_type: FolderType,
        cls: Any,
        fps: float,
        lossless: bool,
        quality: int,
        method: int,
    ) -> SavedResult:
        """Save all as the frames of one WEBP file."""
        path, result = _Place(filename_prefix, folder_type, images).next("webp")
        exif = ImageSaveHelper._create_webp_metadata(ImageSaveHelper._convert_tensor_to_pil(images[0]), cls)
        _save_frames(images, path, fps, exif=exif, lossless=lossless, quality=quality, method=method)
        return result

    @staticmethod
    def get_save_animated_webp_ui(
        images: Any, filename_prefix: str, cls: Any, fps: float, lossless: bool, quality: int, method: int
    ) -> SavedImages:
        """The same in the output folder, and show it."""
        result = ImageSaveHelper.save_animated_webp(
            images, filename_prefix, FolderType.output, cls, fps, lossless, quality, method
        )
        return SavedImages([result], is_animated=len(images) > 1)


def _save_frames(images: Any, path: str, fps: float, **options: Any) -> None:
    first, *others = [ImageSaveHelper._convert_tensor_to_pil(image) for image in images]
    first.save(path, save_all=True, append_images=others, duration=int(1000.0 / fps), **options)
