"""Patches of a UNet's self-attention that let it see fewer tokens at once: HyperTile and token merging.

Both patch what goes into attention (`attn1_patch`) and undo it on what comes out (`attn1_output_patch`).
"""

from __future__ import annotations

import math

import torch


def tiles_along(side: int, least: int, choices: int) -> int:
    """Into how many equal tiles of at least `least` a side is cut; of some choices one is drawn."""
    least = min(least, side)
    counts = [side // size for size in range(least, side + 1) if side % size == 0][:choices]
    if len(counts) == 1:
        return counts[0]
    return counts[int(torch.randint(0, len(counts) - 1, (1,)))]


def cut_into_tiles(x: torch.Tensor, rows: int, down: int, across: int) -> torch.Tensor:
    """(B, rows * columns, C) -> (B * down * across, tokens of a tile, C)."""
    tiles = x.unflatten(1, (down, rows // down, across, -1))
    return tiles.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join_tiles(x: torch.Tensor, rows: int, columns: int, down: int, across: int) -> torch.Tensor:
    """The opposite."""
    tiles = x.unflatten(1, (rows // down, columns // across)).unflatten(0, (-1, down, across))
    return tiles.transpose(2, 3).flatten(1, 4)


class HyperTile:
    """Self-attention inside of tiles, in the levels of the UNet down to `max_depth`.

    As in upstream, only queries are cut in both directions, keys and values into strips of as many tokens.
    """

    def __init__(self, tile_size: int, swap_size: int, max_depth: int, scale_depth: bool):
        self.least = max(32, tile_size) // 8  # latent pixels
        self.swap_size, self.max_depth, self.scale_depth = swap_size, max_depth, scale_depth
        self.cut: tuple[int, int, int, int] | None = None

    def before(self, q, k, v, extra_options):
        """What goes in: tokens (B, tokens, C)."""
        height, width = extra_options["original_shape"][-2:]
        tokens = q.shape[1]
        depths = [d for d in range(self.max_depth + 1) if height / 2**d * (width / 2**d) == tokens]
        if not depths:
            return q, k, v
        rows, columns = round(math.sqrt(tokens * width / height)), round(math.sqrt(tokens * height / width))
        least = self.least * (2 ** depths[0] if self.scale_depth else 1)
        down, across = (tiles_along(side, least, self.swap_size) for side in (rows, columns))
        if down * across == 1:
            return q, k, v
        self.cut = (rows, columns, down, across)
        strips = (t.reshape(-1, t.shape[1] // (down * across), t.shape[2]) for t in (k, v))
        return cut_into_tiles(q, rows, down, across), *strips

    def after(self, out, extra_options):
        """What comes out, put together again."""
        if self.cut is None:
            return out
        cut, self.cut = self.cut, None
        return join_tiles(out, *cut)


class TokenMerging:
    """Merges the `ratio` of tokens that are most alike (Bolya & Hoffman 2023), in the first level alone."""

    STRIDE = 2  # of each square of so many tokens, one drawn by lot is merged into and never merged

    def __init__(self, ratio: float):
        self.ratio = ratio
        self.matching: Matching | None = None

    def before(self, q, k, v, extra_options):
        """What goes in: queries are merged, keys and values are not."""
        height, width = extra_options["original_shape"][-2:]
        tokens = q.shape[1]
        is_first_level = math.ceil(math.sqrt(height * width // tokens)) <= 1
        count = int(tokens * self.ratio)
        self.matching = None
        if is_first_level and count > 0 and min(height, width) > 1:
            self.matching = Matching(q, height, width, self.STRIDE, count)
            q = self.matching.merge(q)
        return q, k, v

    def after(self, out, extra_options):
        """What comes out, for all tokens."""
        return out if self.matching is None else self.matching.unmerge(out)


class Matching:
    """Which tokens are merged into which: each of the others into the one of the chosen most like it."""

    def __init__(self, x: torch.Tensor, height: int, width: int, stride: int, count: int):
        """`count` of the tokens of x (B, height * width, C) are merged."""
        self.others, self.chosen = _draw_chosen(height, width, stride, x.device)
        unit = x / x.norm(dim=-1, keepdim=True)
        likeness, target = (unit[:, self.others] @ unit[:, self.chosen].transpose(1, 2)).max(dim=-1)
        order = likeness.argsort(dim=-1, descending=True)
        self.merged, self.kept = order[:, :count], order[:, count:]  # (B, ...), numbers among the others
        self.target = target.gather(1, self.merged)  # numbers among the chosen

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """(B, tokens, C) -> (B, tokens - count, C): those that are kept, then the chosen as means."""
        others, width = x[:, self.others], x.shape[-1]
        into, merged = (self._wide(index, width) for index in (self.target, self.merged))
        chosen = x[:, self.chosen].scatter_reduce(1, into, others.gather(1, merged), reduce="mean")
        return torch.cat([others.gather(1, self._wide(self.kept, width)), chosen], dim=1)

    def unmerge(self, x: torch.Tensor) -> torch.Tensor:
        """The opposite; a merged token gets what it was merged into."""
        width, count = x.shape[-1], self.kept.shape[1]
        kept, chosen = x[:, :count], x[:, count:]
        others = x.new_empty(len(x), len(self.others), width)
        others.scatter_(1, self._wide(self.kept, width), kept)
        merged = chosen.gather(1, self._wide(self.target, width))
        others.scatter_(1, self._wide(self.merged, width), merged)
        out = x.new_empty(len(x), len(self.others) + len(self.chosen), width)
        out[:, self.others], out[:, self.chosen] = others, chosen
        return out

    @staticmethod
    def _wide(index: torch.Tensor, width: int) -> torch.Tensor:
        return index.unsqueeze(-1).expand(-1, -1, width)


def _draw_chosen(height: int, width: int, stride: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """(others, chosen): numbers of tokens; in each whole square one is chosen by lot."""
    down, across = height // stride, width // stride
    lot = torch.randint(stride * stride, (down, across, 1), device=device)[..., 0]
    rows = torch.arange(down, device=device)[:, None] * stride + lot // stride
    columns = torch.arange(across, device=device) * stride + lot % stride
    is_chosen = torch.zeros(height * width, dtype=torch.bool, device=device)
    is_chosen[(rows * width + columns).flatten()] = True
    return (~is_chosen).nonzero()[:, 0], is_chosen.nonzero()[:, 0]
