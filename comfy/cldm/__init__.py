"""Names that packs import from here; the networks are in `comfy.families`."""
