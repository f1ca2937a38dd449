"""Does a control model belong to the model that is sampled? Told by sizes, before the first step."""

from __future__ import annotations

from dataclasses import dataclass, field

_UNETS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 1280: "SDXL's refiner", 2048: "SDXL"}
_TEXT, _WIDTHS = "width of text", "widths of the levels"


class ControlMismatch(ValueError):
    """A good control model, but of another family than the model that is sampled."""


@dataclass(frozen=True)
class Fit:
    """Sizes by name; those that are None are not asked for."""

    network: str  # "UNet" or "Flux"
    facts: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of_unet(cls, *, widths, layers, latent=None, text=None, vector=None) -> Fit:
        """Channels and resnets of each level, channels of the latent, of the text, of the vector."""
        facts = {
            "channels of the latent": latent, _TEXT: text, "width of the vector": vector,
            _WIDTHS: tuple(widths), "resnets of the levels": tuple(layers),
        }  # fmt: skip
        return cls("UNet", facts)

    @classmethod
    def of_flux(cls, *, latent: int, width: int, text: int, vector: int) -> Fit:
        """Channels of the latent, of the tokens, of the text and of CLIP's vector."""
        facts = {"channels of the latent": latent, "width of the tokens": width, _TEXT: text}
        return cls("Flux", {**facts, "width of the vector": vector})

    @classmethod
    def of_model(cls, model) -> Fit:
        """Of a BaseModel; of one that is neither a UNet nor Flux the name only."""
        config, latent = model.model_config.unet_config, model.latent_format.latent_channels
        if config.get("image_model") == "flux":
            return cls.of_flux(
                latent=latent, width=config["hidden_size"], text=config["context_in_dim"],
                vector=config["vec_in_dim"],
            )  # fmt: skip
        if "channel_mult" not in config:
            return cls(str(config.get("image_model") or type(model.model_config).__name__))
        return cls.of_unet(
            widths=(config["model_channels"] * factor for factor in config["channel_mult"]),
            layers=config["num_res_blocks"], latent=latent, text=config["context_dim"],
            vector=config.get("adm_in_channels"),
        )  # fmt: skip

    def name(self) -> str:
        """For people: the family, where the sizes are those of a known one."""
        if self.network != "UNet":
            return self.network
        text, widths = self.facts.get(_TEXT), self.facts.get(_WIDTHS)
        if text is None and isinstance(widths, tuple):  # the picture alone says nothing of the text
            text = {4: 768, 3: 2048}.get(len(widths)) if widths[0] == 320 else None
        return _UNETS.get(text, "a UNet of another size")  # type: ignore[call-overload]


def require_fit(wanted: Fit, model, *, file: str | None) -> None:
    """Compare what a control model needs with the BaseModel that is about to be sampled.

    Raises:
        ControlMismatch: they are not for each other; says which they are, what differs and what is equal.
    """
    if not hasattr(model, "model_config"):  # a model that a pack made says nothing of its sizes
        return
    found = Fit.of_model(model)
    asked = {name: value for name, value in wanted.facts.items() if value is not None}
    unlike = [name for name, value in asked.items() if found.facts.get(name) != value]
    if wanted.network == found.network and not unlike:
        return
    where = f" of '{file}'" if file else ""
    shared = [f"{name} {value}" for name, value in asked.items() if found.facts.get(name) == value]
    details = [f"{name} {asked[name]} there, {found.facts.get(name, 'none')} here" for name in unlike]
    if wanted.network != found.network:
        details = [f"a {wanted.network} there, a {found.network} here"]
    raise ControlMismatch(
        f"The control model{where} is for {wanted.name()}, but the model that is sampled is {found.name()}: "
        f"{'; '.join(details)}. Equal are: {', '.join(shared) or 'none of their sizes'}. Choose a control "
        f"model for {found.name()}, or a checkpoint of {wanted.name()}."
    )
