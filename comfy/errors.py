"""What can be wrong with a model file. The message stands on the node that asked for it.

ModelFileError(RuntimeError)
├── UnreadableModelFile       the bytes are no model file, or only a part of one
├── UnknownArchitecture       a good file, but of no family that is known here
├── FamilyAbsent              a class of a family that is known by name only
└── LoraMismatch              a good file, but nothing in it fits the model
NotEnoughMemory(MemoryError)  the weights do not fit into the memory of the machine
"""


class ModelFileError(RuntimeError):
    """A model file that cannot be used; `str()` says which file, what is wrong and what to do."""


class UnreadableModelFile(ModelFileError):
    """The file cannot be read as what its name says it is."""


class UnknownArchitecture(ModelFileError):
    """The file was read, but its tensors fit no known family."""


class FamilyAbsent(ModelFileError):
    """A model of a family whose classes are here for node packs to name, and which does not run here."""


class LoraMismatch(ModelFileError):
    """No tensor of a LoRA fits the model it was to change."""


class NotEnoughMemory(MemoryError):
    """Weights would not fit; `str()` says how much they need, how much there is, and what to do."""
