"""What the core files call of the fleet: nothing yet.

A leaf like `comfy_depot.hooks`: standard library only, inert until started. No core file holds a line for it.
"""
