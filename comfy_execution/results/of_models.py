"""Which results were made with which models, so that those of old bytes can be found."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping

from comfy_execution.results.signatures import Signature

REMEMBERED = 50_000


class ResultsOfModels:
    """Results by the models that they were made with; up to a limit, newest first."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._contents: dict[str, str] = {}
        """The last known content of each model."""
        self._models: OrderedDict[Signature, frozenset[str]] = OrderedDict()

    def note(self, signature: Signature, named: Collection[str], sources: Iterable[Signature]) -> None:
        """A result was made by a node that names these models and is linked to these other results."""
        models = frozenset(named).union(*(self._models.get(source, ()) for source in sources))
        if models:
            self._models[signature] = models
            self._models.move_to_end(signature)
            if len(self._models) > self._limit:
                self._models.popitem(last=False)

    def replaced(self, contents: Iterable[Mapping[str, str]]) -> list[Signature]:
        """The results that were made with a model which has another content now, as `contents` tells."""
        other = set()
        for model, content in (item for models in contents for item in models.items()):
            if self._contents.setdefault(model, content) != content:
                self._contents[model] = content
                other.add(model)
        if not other:
            return []
        gone = [signature for signature, models in self._models.items() if models & other]
        for signature in gone:
            del self._models[signature]
        return gone
