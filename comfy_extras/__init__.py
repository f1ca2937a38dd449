"""Nodes by topic. `nodes_<topic>.py` files are found by name; `core_<topic>.py` files are parts of
`nodes.py`.
"""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
