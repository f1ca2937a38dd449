"""`Caching` of the interface under the name of the module that packs import privately."""

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue

__all__ = ["CacheContext", "CacheProvider", "CacheValue"]
