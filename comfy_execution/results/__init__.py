"""The results of nodes: how they are named, how long they stay, and why a node ran or did not.

`signatures` name a result by its content; `scopes` remember what each expanding node expanded into. `stores`
keep results, one class per cache mode: what they may cost is in `retention`, what one of them costs in
`size`, which goes first in `budget`, how much RAM there is in `ram`. `reasons` say why a node ran. The
executor meets all of this as `comfy_execution.caching`; results from outside come by
`comfy_execution.cache_provider`. These two have names that node packs import, so they lie one room up.
"""
