"""The config classes of all families under the names that packs import; each stands in its family's file.

`models` lists those whose models run here; classes of other families stand here beside them, by name alone.
"""

from comfy import absent_families, supported_models_base
from comfy.families import families

_CLASSES = {name: found for family in families() for name, found in family.config_classes.items()}
_ABSENT = absent_families.config_classes(_CLASSES, supported_models_base.BASE)
globals().update({**_ABSENT, **_CLASSES})

models = list(_CLASSES.values())
__all__ = ["models", "supported_models_base", *_ABSENT, *_CLASSES]
