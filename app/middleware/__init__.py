"""What happens around every request, one concern per file."""

from __future__ import annotations

from typing import Any

from app.middleware.cache_headers import set_cache_header
from app.middleware.compression import compress_body
from app.middleware.deprecation import name_old_scripts
from app.middleware.journal import tell_of_the_journal
from app.middleware.origin import answer_options, create_cors_headers, refuse_other_sites
from app.middleware.policy import forbid_the_internet


def chosen_middlewares(args: Any) -> list:
    """What stands around the handlers with these options, outermost first."""
    chosen = [answer_options if args.enable_cors_header else refuse_other_sites]
    chosen += [compress_body] if args.enable_compress_response_body else []
    return [*chosen, name_old_scripts, tell_of_the_journal]


def chosen_header_setters(args: Any) -> list:
    """What adds headers to every answer, also to errors and files, just before it is sent."""
    chosen = [set_cache_header]
    if args.enable_cors_header:
        chosen.append(create_cors_headers(args.enable_cors_header))
    if args.disable_api_nodes:
        chosen.append(forbid_the_internet)
    return chosen
