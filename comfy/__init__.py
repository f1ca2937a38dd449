"""ComfyUI's inference library on a maintained model zoo; it knows no server, no queue and no nodes."""
