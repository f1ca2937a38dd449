"""`pin --memory` and `unpin --memory`: for the server that shares the state folder."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import asdict

from comfy_depot.commands.opening import folder_and_name, open_depot
from comfy_depot.commands.printing import human_size, print_json, print_table
from comfy_depot.depot import Depot
from comfy_depot.errors import DepotError
from comfy_depot.pinning import Plan

BY = "python -m comfy_depot pin"
OF_THE_SERVER = ("(Pins of the server's own command line are let go by POST /depot/unpin, and its groups are "
                 "known here when --pin-group is given as to the server.)")


def change_pins(arguments: argparse.Namespace, *, is_pin: bool) -> int:
    """Pin or unpin models or a group in memory, unless it is a dry run; then show all pins."""
    errors = []
    with open_depot(arguments) as depot:
        made = None
        for plan in _plans(depot, arguments, is_pin=is_pin):
            try:
                made = depot.pinning.carry_out(plan, is_dry_run=arguments.dry_run)
            except DepotError as error:
                errors.append(f"{error} {OF_THE_SERVER}")
        pins = depot.memory_pins.all() if made is None else made.pins
        found = [(pin, sum(target.size or 0 for target in depot.pinning.targets([pin]))) for pin in pins]
        if depot.memory_pins.problem is not None and not errors:
            errors.append(depot.memory_pins.problem)
    if arguments.json:
        print_json({"dry_run": arguments.dry_run, "errors": errors,
                    "pins": [{**asdict(pin), "bytes": size} for pin, size in found]})
    else:
        print_table(("pinned in memory", "size", "by"),
                    [(pin.pattern, human_size(size), pin.by) for pin, size in found])
    for message in errors:
        print(f"Error: {message}", file=sys.stderr)
    return 1 if errors else 0


def _plans(depot: Depot, arguments: argparse.Namespace, *, is_pin: bool) -> list[Callable[[], Plan]]:
    names = [folder_and_name(model) for model in arguments.models]
    plans: list[Callable[[], Plan]] = []
    if arguments.group:
        plans.append(functools.partial(depot.pinning.plan_group, arguments.group, is_on=is_pin))
    if is_pin:
        plans += [functools.partial(depot.pinning.plan_pin, folder, name, BY) for folder, name in names]
    else:
        plans += [functools.partial(depot.pinning.plan_unpin, folder, name) for folder, name in names]
    return plans
