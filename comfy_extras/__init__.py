"""Nodes by topic. `nodes_<topic>.py` files are found by name; `core_<topic>.py` files are parts of
`nodes.py`.
"""
