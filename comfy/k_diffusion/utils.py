"""Small tensor helpers that samplers and node packs share."""


def append_dims(x, target_dims):
    """Add trailing dimensions of size one until `x` has `target_dims` of them."""
    missing = target_dims - x.ndim
    if missing < 0:
        raise ValueError(f"The tensor has {x.ndim} dimensions, more than the {target_dims} asked for.")
    return x[(...,) + (None,) * missing]
