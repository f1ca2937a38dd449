"""Which safetensors files are opened: to map or to read one, everybody opens it."""

import safetensors

COUNTING = '''
import safetensors

opened = []
open_one = safetensors.safe_open

def counting(path, *args, **kwargs):
    opened.append(str(path))
    return open_one(path, *args, **kwargs)

safetensors.safe_open = counting
'''
"""The same for a server: the source of a node pack begins with it."""


def counted_opens(monkeypatch) -> list[str]:
    """The paths of the files that are opened from now on, filled in as it happens."""
    opened: list[str] = []
    open_one = safetensors.safe_open

    def counting(path, *args, **kwargs):
        opened.append(str(path))
        return open_one(path, *args, **kwargs)

    monkeypatch.setattr(safetensors, "safe_open", counting)
    return opened
