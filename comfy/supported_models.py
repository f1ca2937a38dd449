"""The config classes of all families under the names that packs import; each stands in its family's file."""

from comfy import supported_models_base
from comfy.families import families

_CLASSES = {name: found for family in families() for name, found in family.config_classes.items()}
globals().update(_CLASSES)

models = list(_CLASSES.values())
__all__ = ["models", "supported_models_base", *_CLASSES]
