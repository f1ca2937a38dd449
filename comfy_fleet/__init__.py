"""Many workers and many machines: the room is here, its furniture is not.

One process serves one queue today. Whatever spreads prompts over workers will stand in this package and be
reached through `hooks.py` only.
"""
