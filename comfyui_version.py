"""The version of ComfyUI's interface that this server speaks. Clients and the web UI compare it."""

__version__ = "0.33.0"
