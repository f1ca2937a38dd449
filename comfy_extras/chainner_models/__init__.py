"""Where packs of earlier days look for the loader of upscale models."""
