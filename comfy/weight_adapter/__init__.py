"""The kinds of low-rank and other compact patches that LoRA files hold, one per file, under upstream's names.

An adapter is made by its class's `load` from the tensors of one layer, and changes a weight by
`calculate_weight`. A new kind is a new file and an entry in `adapters`.
"""

from __future__ import annotations

from comfy.weight_adapter.base import RowsAdapter, WeightAdapterBase
from comfy.weight_adapter.boft import BOFTAdapter
from comfy.weight_adapter.bypass import BypassInjectionManager
from comfy.weight_adapter.glora import GLoRAAdapter
from comfy.weight_adapter.loha import LoHaAdapter
from comfy.weight_adapter.lokr import LoKrAdapter
from comfy.weight_adapter.lora import LoRAAdapter
from comfy.weight_adapter.oft import OFTAdapter

adapters: list[type[WeightAdapterBase]] = [
    LoRAAdapter, LoHaAdapter, LoKrAdapter, GLoRAAdapter, OFTAdapter, BOFTAdapter,
]  # fmt: skip
# By the names that training nodes show.
adapter_maps: dict[str, type[WeightAdapterBase]] = {
    "LoRA": LoRAAdapter, "LoHa": LoHaAdapter, "LoKr": LoKrAdapter, "OFT": OFTAdapter,
}  # fmt: skip

__all__ = [
    "BOFTAdapter", "BypassInjectionManager", "GLoRAAdapter", "LoHaAdapter", "LoKrAdapter", "LoRAAdapter",
    "OFTAdapter", "RowsAdapter", "WeightAdapterBase", "adapter_maps", "adapters",
]  # fmt: skip
