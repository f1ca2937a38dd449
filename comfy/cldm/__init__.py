"""Names that packs import from here; the networks are in `comfy.families`."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
