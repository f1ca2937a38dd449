"""Vector graphics."""

from __future__ import annotations

from io import BytesIO


class SVG:
    """SVG documents, one per picture of a batch."""

    def __init__(self, data: list[BytesIO]) -> None:
        self.data = data

    def combine(self, other: SVG) -> SVG:
        """Those of both."""
        return SVG.combine_all([self, other])

    @staticmethod
    def combine_all(svgs: list[SVG]) -> SVG:
        """Those of all."""
        return SVG([document for one in svgs for document in one.data])
