"""ComfyUI Depot: a model has one life with four tiers, cloud -> disk -> memory -> GPU.

`hooks.py` is what the core files call, and it steps aside until `start(options, host)` is called here.
Importing this package loads nothing but the standard library; the depot itself is imported by `start`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # the name that type checkers know; importing `typing` would cost 10 ms
if TYPE_CHECKING:
    from comfy_depot.depot import Depot
    from comfy_depot.host import Host
    from comfy_depot.options import Options


def start(options: Options | None = None, host: Host | None = None) -> Depot | None:
    """Start the depot: read the manifests, open the access log, arm the hooks. None with `--depot-off`."""
    from comfy_depot import depot

    return depot.start(options, host)


def stop() -> None:
    """Stop downloads (what has arrived is kept), write the rest of the access log, disarm the hooks."""
    from comfy_depot import depot

    depot.stop()
