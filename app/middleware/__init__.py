"""What happens around every request, one concern per file."""

from __future__ import annotations

from typing import Any

from app.middleware.cache_headers import cache_control
from app.middleware.compression import compress_body
from app.middleware.origin import create_cors_middleware, create_origin_only_middleware
from app.middleware.policy import forbid_the_internet


def chosen_middlewares(args: Any) -> list:
    """The middlewares for these options, outermost first."""
    chosen = [cache_control]
    if args.enable_compress_response_body:
        chosen.append(compress_body)
    if args.enable_cors_header:
        chosen.append(create_cors_middleware(args.enable_cors_header))
    else:
        chosen.append(create_origin_only_middleware())
    if args.disable_api_nodes:
        chosen.append(forbid_the_internet)
    return chosen
