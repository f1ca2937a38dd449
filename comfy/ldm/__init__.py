"""Network layers under the module names that node packs import.

Real layers with the names of weights that checkpoints have. The models that run here are built by
`comfy.families`; docs/node-packs.md says which replacements of these names reach them.
"""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
