"""Files of Gaussian splats.

ply     as 3D Gaussian Splatting writes it: opacities as logits, scales as logarithms, all harmonics
splat   32 bytes each: place, scale, red green blue opacity, rotation
spz     Niantic's, version 2: quantised and compressed; read in version 1 too
ksplat  GaussianSplats3D's, version 0.1, not compressed
"""

from __future__ import annotations

import gzip
import struct
import zlib

import numpy

from comfy_extras.geometry.meshes import unit
from comfy_extras.geometry.splats import Cloud, sh_of

SPZ_MAGIC, SPZ_VERSION, SPZ_FRACTION_BITS, SPZ_COLOR_SCALE = 0x5053474E, 2, 12, 0.15
KSPLAT_HEADER, KSPLAT_SECTION = 4096, 1024
KSPLAT_RECORD = numpy.dtype([
    ("positions", "<f4", 3), ("scales", "<f4", 3), ("rotations", "<f4", 4), ("rgba", "u1", 4),
])  # fmt: skip
SPLAT_RECORD = numpy.dtype([
    ("positions", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("rotations", "u1", 4),
])  # fmt: skip
PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
NEEDED = (
    "x",
    "y",
    "z",
    "opacity",
    "scale_0",
    "scale_1",
    "scale_2",
    "rot_0",
    "rot_1",
    "rot_2",
    "rot_3",
    "f_dc_0",
)


class NotSplats(ValueError):
    """A file that holds no splats that can be read."""


def _bytes_of(values):
    return numpy.clip(numpy.round(values), 0, 255).astype(numpy.uint8)


def _rgba(cloud):
    return _bytes_of(numpy.concatenate([cloud.colors, cloud.opacities[:, None]], axis=1) * 255)


def write_ply(cloud):
    """The bytes of a PLY file."""
    rest = cloud.sh[:, 1:].transpose(0, 2, 1).reshape(len(cloud), -1)  # all of red, then green, then blue
    names = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{index}" for index in range(3))]
    names += [f"f_rest_{index}" for index in range(rest.shape[1])]
    names += ["opacity", *(f"scale_{index}" for index in range(3)), *(f"rot_{index}" for index in range(4))]
    opacity = numpy.clip(cloud.opacities, 1e-6, 1 - 1e-6)[:, None]
    columns = [
        cloud.positions, numpy.zeros_like(cloud.positions), cloud.sh[:, 0], rest,
        numpy.log(opacity / (1 - opacity)), numpy.log(numpy.maximum(cloud.scales, 1e-12)),
        unit(cloud.rotations),
    ]  # fmt: skip
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud)}"]
    lines += [*(f"property float {name}" for name in names), "end_header", ""]
    return "\n".join(lines).encode() + numpy.concatenate(columns, axis=1).astype("<f4").tobytes()


def _ply_columns(data):
    """{name: values} of the vertices of a PLY file."""
    end = data.find(b"end_header")
    if end < 0:
        raise NotSplats("the PLY file has no end of its header")
    start = data.index(b"\n", end) + 1
    lines = [line.split() for line in data[:end].decode("latin-1").splitlines() if line.strip()]
    form = next((line[1] for line in lines if line[0] == "format"), "")
    at = next((number for number, line in enumerate(lines) if line[:2] == ["element", "vertex"]), None)
    if at is None or any(line[0] == "element" for line in lines[:at]):
        raise NotSplats("the PLY file does not begin with vertices")
    properties = []
    for line in lines[at + 1 :]:
        if line[0] == "element":
            break
        if line[0] == "property":
            if line[1] not in PLY_TYPES:
                raise NotSplats(f"the PLY file has a property of the type {line[1]!r}")
            properties.append((line[2], PLY_TYPES[line[1]]))
    count = int(lines[at][2])
    if form == "ascii":
        table = numpy.array(data[start:].split()[: count * len(properties)], float).reshape(count, -1)
        return {name: table[:, index] for index, (name, _) in enumerate(properties)}
    order = ">" if form == "binary_big_endian" else "<"
    record = numpy.dtype([(name, order + kind) for name, kind in properties])
    if len(data) - start < record.itemsize * count:
        raise NotSplats(f"the PLY file ends before its {count} vertices do")
    table = numpy.frombuffer(data, record, count, start)
    return {name: table[name].astype(float) for name, _ in properties}


def read_ply(data):
    """The splats of a PLY file."""
    columns = _ply_columns(data)
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise NotSplats(f"the PLY file has no {missing[0]}: it holds points or a mesh, no splats")

    def stacked(prefix, count):
        return numpy.stack([columns[f"{prefix}{index}"] for index in range(count)], axis=1)

    rest = sum(name.startswith("f_rest_") for name in columns)
    sh = stacked("f_dc_", 3)[:, None]
    if rest:
        others = stacked("f_rest_", rest).reshape(len(sh), 3, rest // 3).transpose(0, 2, 1)
        sh = numpy.concatenate([sh, others], axis=1)
    positions = numpy.stack([columns[axis] for axis in "xyz"], axis=1)
    opacities = 1 / (1 + numpy.exp(-columns["opacity"]))
    return Cloud(positions, numpy.exp(stacked("scale_", 3)), unit(stacked("rot_", 4)), opacities, sh)


def read_splat(data):
    """The splats of a SPLAT file."""
    if len(data) % SPLAT_RECORD.itemsize:
        raise NotSplats(f"its {len(data)} bytes are no multiple of {SPLAT_RECORD.itemsize}")
    table = numpy.frombuffer(data, SPLAT_RECORD)
    rgba = table["rgba"] / 255
    rotations = unit((table["rotations"].astype(float) - 128) / 128)
    return Cloud(table["positions"], table["scales"], rotations, rgba[:, 3], sh_of(rgba[:, :3]))


def write_ksplat(cloud):
    """The bytes of a KSPLAT file. Harmonics but the plain colour are left out."""
    table = numpy.empty(len(cloud), KSPLAT_RECORD)
    table["positions"], table["scales"] = cloud.positions, cloud.scales
    table["rotations"], table["rgba"] = unit(cloud.rotations), _rgba(cloud)
    header, section = bytearray(KSPLAT_HEADER), bytearray(KSPLAT_SECTION)
    struct.pack_into("<BBxxIIIIH", header, 0, 0, 1, 1, 1, len(cloud), len(cloud), 0)
    struct.pack_into("<II", section, 0, len(cloud), len(cloud))
    struct.pack_into("<I", section, 28, table.nbytes)
    return bytes(header) + bytes(section) + table.tobytes()


def read_ksplat(data):
    """The splats of a KSPLAT file of compression level 0."""
    if len(data) < KSPLAT_HEADER or data[0] != 0:
        raise NotSplats("the KSPLAT file has an unknown version")
    sections = struct.unpack_from("<I", data, 4)[0]
    if struct.unpack_from("<H", data, 20)[0] != 0:
        raise NotSplats("the KSPLAT file is compressed, which cannot be read; save it as PLY")
    start, tables = KSPLAT_HEADER + sections * KSPLAT_SECTION, []
    for number in range(sections):
        at = KSPLAT_HEADER + number * KSPLAT_SECTION
        count, room = struct.unpack_from("<II", data, at)
        if struct.unpack_from("<H", data, at + 40)[0]:
            raise NotSplats("the KSPLAT file has harmonics, which cannot be read; save it as PLY")
        if len(data) < start + count * KSPLAT_RECORD.itemsize:
            raise NotSplats("the KSPLAT file ends too early")
        tables.append(numpy.frombuffer(data, KSPLAT_RECORD, count, start))
        start += room * KSPLAT_RECORD.itemsize
    table = numpy.concatenate(tables) if tables else numpy.empty(0, KSPLAT_RECORD)
    rgba = table["rgba"] / 255
    return Cloud(
        table["positions"], table["scales"], unit(table["rotations"]), rgba[:, 3], sh_of(rgba[:, :3])
    )


def write_spz(cloud):
    """The bytes of an SPZ file of version 2. Harmonics but the plain colour are left out."""
    fixed = numpy.round(cloud.positions.astype(float) * 2**SPZ_FRACTION_BITS)
    limit = 2**23
    places = numpy.clip(fixed, -limit, limit - 1).astype("<i4").reshape(-1, 1).view("u1")[:, :3]
    colors = cloud.sh[:, 0] * SPZ_COLOR_SCALE + 0.5
    turns = unit(cloud.rotations)
    turns = turns * numpy.where(turns[:, :1] < 0, -1, 1)
    parts = [
        places, _bytes_of(cloud.opacities * 255), _bytes_of(colors * 255),
        _bytes_of((numpy.log(numpy.maximum(cloud.scales, 1e-9)) + 10) * 16),
        _bytes_of((turns[:, 1:] + 1) * 127.5),
    ]  # fmt: skip
    header = struct.pack("<IIIBBBB", SPZ_MAGIC, SPZ_VERSION, len(cloud), 0, SPZ_FRACTION_BITS, 0, 0)
    return gzip.compress(header + b"".join(part.tobytes() for part in parts), mtime=0)


def read_spz(data):
    """The splats of an SPZ file, with their plain colour."""
    try:
        raw = gzip.decompress(data)
        magic, version, count, _, bits = struct.unpack_from("<IIIBB", raw)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise NotSplats(f"the SPZ file cannot be unpacked ({error})") from error
    if magic != SPZ_MAGIC or version not in (1, 2):
        raise NotSplats(f"the SPZ file has version {version}; 1 and 2 can be read. Save it as PLY")
    widths = [6 if version == 1 else 9, 1, 3, 3, 3]
    if len(raw) < 16 + count * sum(widths):
        raise NotSplats("the SPZ file ends too early")
    parts, at = [], 16
    for width in widths:
        parts.append(numpy.frombuffer(raw, "u1", count * width, at).reshape(count, width))
        at += count * width
    places, opacities, colors, scales, turns = parts
    if version == 1:
        positions = places.copy().view("<f2").astype(float)
    else:
        wide = numpy.zeros((count * 3, 4), "u1")
        wide[:, 1:] = places.reshape(-1, 3)  # the sign then stands in the highest bit
        positions = (wide.view("<i4") >> 8).reshape(count, 3) / 2**bits
    xyz = turns / 127.5 - 1
    w = numpy.sqrt(numpy.maximum(1 - (xyz**2).sum(axis=1, keepdims=True), 0))
    sh = ((colors / 255 - 0.5) / SPZ_COLOR_SCALE)[:, None]
    sizes = numpy.exp(scales / 16 - 10)
    return Cloud(positions, sizes, unit(numpy.concatenate([w, xyz], axis=1)), opacities[:, 0] / 255, sh)


READERS = {"ply": read_ply, "splat": read_splat, "ksplat": read_ksplat, "spz": read_spz}
WRITERS = {"ply": write_ply, "ksplat": write_ksplat, "spz": write_spz}


def kind_of(data):
    """The format of a file, by how it begins."""
    if data[:3] == b"ply":
        return "ply"
    if data[:2] == b"\x1f\x8b":
        return "spz"
    return "ksplat" if len(data) >= KSPLAT_HEADER and data[:2] == b"\0\1" else "splat"


def read(data, kind=""):
    """The splats of a file. ValueError says why there are none."""
    kind = kind if kind in READERS else kind_of(data)
    try:
        cloud = READERS[kind](data)
    except NotSplats as error:
        raise ValueError(f"The file cannot be read as splats: {error}.") from error
    if not len(cloud):
        raise ValueError("The file holds no splats. Choose another one.")
    return cloud
