"""The layers of Flux.1."""
