"""Pictures are put into batches of another size, in their order."""

import pytest
import torch

from comfy_extras.nodes_rebatch import LatentRebatch, RebatchImages, comfy_entrypoint


@pytest.mark.parametrize(("sizes", "wanted", "found"), [
    ([1, 1, 1], 2, [2, 1]), ([5], 2, [2, 2, 1]), ([2, 3], 5, [5]), ([2, 1], 1, [1, 1, 1]),
])  # fmt: skip
def test_all_pictures_are_in_batches_of_the_size(sizes, wanted, found):
    pictures = torch.arange(sum(sizes)).view(-1, 1, 1, 1).float()
    batches = RebatchImages.execute(list(pictures.split(sizes)), [wanted]).result[0]
    assert [batch.shape[0] for batch in batches] == found
    assert torch.equal(torch.cat(batches), pictures)


async def test_the_topic_gives_its_nodes_by_an_entry_point():
    assert await comfy_entrypoint().get_node_list() == [LatentRebatch, RebatchImages]
    assert RebatchImages.INPUT_IS_LIST and RebatchImages.OUTPUT_IS_LIST == [True]
