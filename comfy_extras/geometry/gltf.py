"""Meshes as binary glTF 2.0 files (GLB), after Khronos's specification.

header      "glTF", version 2, length of the file
JSON chunk  the scene; filled up with blanks to a multiple of 4
BIN chunk   the buffers that it names; filled up with zeros
"""

from __future__ import annotations

import io
import json
import struct

import numpy

FLOAT, UNSIGNED_INT = 5126, 5125
VERTICES, INDICES = 34962, 34963  # targets of buffers
LINEAR, CLAMP_TO_EDGE = 9729, 33071
TRIANGLES = 4
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
# How surfaces look of which nothing is said.
PLAIN_GRAY = [0.22, 0.22, 0.22, 1.0]


class _Buffer:
    """Parts of the binary chunk, and the tables that name them."""

    def __init__(self):
        self.data = bytearray()
        self.views, self.accessors, self.images, self.textures = [], [], [], []

    def view(self, content, target=None):
        self.data.extend(b"\0" * (-len(self.data) % 4))
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        self.views.append(view if target is None else {**view, "target": target})
        self.data.extend(content)
        return len(self.views) - 1

    def accessor(self, array, kind, target, component=FLOAT, **more):
        view = self.view(array.tobytes(), target)
        entry = {"bufferView": view, "componentType": component, "count": array.size // (array.shape[-1])}
        if kind == "SCALAR":
            entry["count"] = array.size
        self.accessors.append({**entry, "type": kind, **more})
        return len(self.accessors) - 1

    def texture(self, picture):
        """Enter a picture (H, W, 3) of 0..1 as PNG; gives a reference to its texture."""
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray((numpy.clip(picture, 0, 1) * 255).astype(numpy.uint8)).save(stream, "PNG")
        self.images.append({"bufferView": self.view(stream.getvalue()), "mimeType": "image/png"})
        self.textures.append({"source": len(self.images) - 1, "sampler": 0})
        return {"index": len(self.textures) - 1, "texCoord": 0}


def _attributes(buffer, body):
    vertices = numpy.ascontiguousarray(body.vertices, numpy.float32)
    limits = {"min": vertices.min(axis=0).tolist(), "max": vertices.max(axis=0).tolist()}
    attributes = {"POSITION": buffer.accessor(vertices, "VEC3", VERTICES, **limits)}
    colors = None if body.colors is None else numpy.clip(body.colors, 0, 1)
    for name, array in (
        ("TEXCOORD_0", body.uvs), ("COLOR_0", colors), ("NORMAL", body.normals), ("TANGENT", body.tangents),
    ):  # fmt: skip
        if array is not None:
            array = numpy.ascontiguousarray(array, numpy.float32)
            attributes[name] = buffer.accessor(array, f"VEC{array.shape[1]}", VERTICES)
    return attributes


def _unlit():
    surface = {"baseColorFactor": [1.0] * 4, "metallicFactor": 0.0, "roughnessFactor": 1.0}
    return {"pbrMetallicRoughness": surface, "extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}


def _surface(buffer, body, pictures, said):
    """The colour and the roughness of a material."""
    is_colored = "texture" in pictures or body.colors is not None
    surface = {
        "baseColorFactor": [1.0] * 4 if is_colored else PLAIN_GRAY,
        "metallicFactor": 0.0,
        "roughnessFactor": 1.0 if is_colored else 0.5,
    }
    if "texture" in pictures:
        surface["baseColorTexture"] = buffer.texture(pictures["texture"])
    if "metallic_roughness" in pictures:
        surface["metallicRoughnessTexture"] = buffer.texture(pictures["metallic_roughness"])
        surface |= {"metallicFactor": 1.0, "roughnessFactor": 1.0}
    if said.get("base_color_factor") is not None:
        surface["baseColorFactor"] = [float(value) for value in said["base_color_factor"]]
    for name, key in (("metallic_factor", "metallicFactor"), ("roughness_factor", "roughnessFactor")):
        if said.get(name, -1.0) >= 0:
            surface[key] = float(said[name])
    return surface


def _glow(buffer, pictures, said):
    """What a material sends out by itself."""
    factor = [float(value) for value in said.get("emissive_factor", (0, 0, 0))]
    if "emissive" not in pictures and not any(factor):
        return {}
    glow = {"emissiveFactor": [min(1.0, value) for value in factor] if any(factor) else [1.0] * 3}
    if "emissive" in pictures:
        glow["emissiveTexture"] = buffer.texture(pictures["emissive"])
    strength = float(said.get("emissive_strength", 1.0))
    if strength != 1.0:
        glow["extensions"] = {"KHR_materials_emissive_strength": {"emissiveStrength": strength}}
    return glow


def _material(buffer, body):
    pictures = body.textures if body.uvs is not None else {}
    if body.of_all.get("unlit") and "texture" not in body.textures:
        return _unlit()
    said = body.of_all.get("material") or {}
    surface = _surface(buffer, body, pictures, said)
    material = {"pbrMetallicRoughness": surface, "doubleSided": bool(said.get("double_sided", True))}
    if body.of_all.get("occlusion_in_mr") and "metallicRoughnessTexture" in surface:
        strength = float(said.get("occlusion_strength", 1.0))
        material["occlusionTexture"] = {**surface["metallicRoughnessTexture"], "strength": strength}
    if "normal_map" in pictures:
        scale = float(said.get("normal_scale", 1.0))
        material["normalTexture"] = {**buffer.texture(pictures["normal_map"]), "scale": scale}
    return {**material, **_glow(buffer, pictures, said)}


def _chunk(kind, content, filler):
    content += filler * (-len(content) % 4)
    return struct.pack("<II", len(content), kind) + content


def write_glb(body, metadata=None):
    """The bytes of a GLB file with one mesh. `metadata` is kept in the extras of the asset.

    ValueError if there is nothing to see.
    """
    if not len(body.vertices) or not len(body.faces):
        raise ValueError(
            "The mesh is empty: it has no faces. Link one that has, or lower the threshold before it."
        )
    buffer = _Buffer()
    attributes = _attributes(buffer, body)
    faces = numpy.ascontiguousarray(body.faces, numpy.uint32)
    indices = buffer.accessor(faces, "SCALAR", INDICES, UNSIGNED_INT)
    material = _material(buffer, body)
    asset = {"version": "2.0", "generator": "ComfyUI Depot"}
    scene = {
        "asset": {**asset, "extras": metadata} if metadata else asset,
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [
            {"primitives": [{"attributes": attributes, "indices": indices, "mode": TRIANGLES, "material": 0}]}
        ],
        "materials": [material],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data) + -len(buffer.data) % 4}],
    }
    if buffer.images:
        sampler = {"magFilter": LINEAR, "minFilter": LINEAR, "wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}
        scene |= {"images": buffer.images, "textures": buffer.textures, "samplers": [sampler]}
    if material.get("extensions"):
        scene["extensionsUsed"] = list(material["extensions"])
    chunks = _chunk(JSON_CHUNK, json.dumps(scene).encode(), b" ") + _chunk(
        BINARY_CHUNK, bytes(buffer.data), b"\0"
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
