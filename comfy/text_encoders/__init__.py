"""Text encoders and tokenizers of the model families, under the module names that packs import."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
