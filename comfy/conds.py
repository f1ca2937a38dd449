"""Values of a conditioning on their way to the network: how each is cut to an area, batched and joined."""

import logging
import math

import torch

import comfy.utils


class CONDRegular:
    """A tensor with one row per sample; rows are repeated to the batch."""

    def __init__(self, cond):
        self.cond = cond

    def _copy_with(self, cond):
        return self.__class__(cond)

    def process_cond(self, batch_size, **kwargs):
        """The value for a batch of this size; `area` is (sizes..., offsets...) of the region, or None."""
        return self._copy_with(comfy.utils.repeat_to_batch_size(self.cond, batch_size))

    def on_device(self, device):
        """The same value where the network computes, so that no step copies it again."""
        is_there = not torch.is_tensor(self.cond) or self.cond.device == torch.device(device)
        return self if is_there else self._copy_with(self.cond.to(device))

    def can_concat(self, other):
        """May both be evaluated in one batch?"""
        return self.cond.shape == other.cond.shape and self._same_device(other)

    def _same_device(self, other):
        if self.cond.device == other.cond.device:
            return True
        logging.warning(
            "Conditioning on %s and on %s is evaluated one after the other.",
            self.cond.device,
            other.cond.device,
        )
        return False

    def concat(self, others):
        """One tensor for the whole batch, this value's rows first."""
        return torch.cat([self.cond, *(other.cond for other in others)])

    def size(self):
        """The shape, for the memory estimate."""
        return list(self.cond.size())


class CONDNoiseShape(CONDRegular):
    """A tensor shaped like the latent: it is cut to the area as the latent is."""

    def process_cond(self, batch_size, area, **kwargs):
        """See CONDRegular."""
        data = self.cond
        if area is not None:
            dims = len(area) // 2
            for dim, (size, offset) in enumerate(zip(area[:dims], area[dims:])):
                data = data.narrow(dim + 2, offset, size)
        return self._copy_with(comfy.utils.repeat_to_batch_size(data, batch_size))


class CONDCrossAttn(CONDRegular):
    """Tokens (B, tokens, channels); texts of different length are repeated to a common one.

    Attention over a sequence repeated k times equals attention over the sequence, so nothing changes.
    """

    LONGEST_REPEAT = 4

    def can_concat(self, other):
        """See CONDRegular; a text that would be repeated more than LONGEST_REPEAT times is refused."""
        ours, theirs = self.cond.shape, other.cond.shape
        if ours != theirs:
            if (ours[0], ours[2]) != (theirs[0], theirs[2]):
                return False
            if math.lcm(ours[1], theirs[1]) // min(ours[1], theirs[1]) > self.LONGEST_REPEAT:
                return False
        return self._same_device(other)

    def concat(self, others):
        """See CONDRegular."""
        tokens = [self.cond, *(other.cond for other in others)]
        length = math.lcm(*(t.shape[1] for t in tokens))
        return torch.cat([t.repeat(1, length // t.shape[1], 1) for t in tokens])


class CONDConstant(CONDRegular):
    """A value that is the same for every sample, handed on as it is."""

    def process_cond(self, batch_size, **kwargs):
        """See CONDRegular."""
        return self._copy_with(self.cond)

    def can_concat(self, other):
        """See CONDRegular."""
        return bool(self.cond == other.cond)

    def concat(self, others):
        """See CONDRegular."""
        return self.cond

    def size(self):
        """See CONDRegular."""
        return [1]


class CONDList(CONDRegular):
    """Several tensors, each batched on its own."""

    def process_cond(self, batch_size, **kwargs):
        """See CONDRegular."""
        return self._copy_with([comfy.utils.repeat_to_batch_size(c, batch_size) for c in self.cond])

    def on_device(self, device):
        """See CONDRegular."""
        return self._copy_with([c.to(device) for c in self.cond])

    def can_concat(self, other):
        """See CONDRegular."""
        return [c.shape for c in self.cond] == [c.shape for c in other.cond]

    def concat(self, others):
        """See CONDRegular."""
        return [torch.cat(rows) for rows in zip(self.cond, *(other.cond for other in others))]

    def size(self):
        """One shape with as many elements as all of them, and the channels of the last."""
        elements = sum(math.prod(c.size()) for c in self.cond)
        channels = next((c.shape[1] for c in reversed(self.cond) if c.ndim > 1), 1)
        return [1, channels, elements // channels]
