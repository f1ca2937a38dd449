"""Autoencoders as latent diffusion names them: an encoder, a regulariser and a decoder."""

from __future__ import annotations

import logging
from contextlib import contextmanager

import torch
from torch import nn

import comfy.ops
from comfy.ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from comfy.ldm.modules.ema import LitEma
from comfy.ldm.util import get_obj_from_str, instantiate_from_config

ops = comfy.ops.disable_weight_init


class DiagonalGaussianRegularizer(nn.Module):
    """Means and variances to latents: the means, or with `sample` a draw."""

    def __init__(self, sample: bool = False):
        super().__init__()
        self.sample = sample

    def get_trainable_parameters(self):
        yield from ()

    def forward(self, z):
        posterior = DiagonalGaussianDistribution(z)
        return (posterior.sample() if self.sample else posterior.mode()), None


class EmptyRegularizer(nn.Module):
    """What the encoder gives are the latents."""

    def forward(self, z):
        return z, None


class AbstractAutoencoder(nn.Module):
    """What every autoencoder has; with `ema_decay` also averages of its weights."""

    def __init__(self, ema_decay=None, monitor=None, input_key="jpg", **kwargs):
        super().__init__()
        self.input_key, self.use_ema = input_key, ema_decay is not None
        if monitor is not None:
            self.monitor = monitor
        if self.use_ema:
            self.model_ema = LitEma(self, decay=ema_decay)

    def get_input(self, batch):
        raise NotImplementedError(f"{type(self).__name__} does not say which part of a batch it takes.")

    def on_train_batch_end(self, *args, **kwargs):
        if self.use_ema:
            self.model_ema(self)

    @contextmanager
    def ema_scope(self, context=None):
        """The averages in place of the weights, as long as it lasts."""
        if self.use_ema:
            self.model_ema.store(self.parameters())
            self.model_ema.copy_to(self)
        try:
            yield None
        finally:
            if self.use_ema:
                self.model_ema.restore(self.parameters())
                if context is not None:
                    logging.info("%s: back to the trained weights.", context)

    def encode(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__} does not say how it encodes.")

    def decode(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__} does not say how it decodes.")

    def instantiate_optimizer_from_config(self, params, lr, cfg):
        return get_obj_from_str(cfg["target"])(params, lr=lr, **cfg.get("params", {}))

    def configure_optimizers(self):
        raise NotImplementedError(f"{type(self).__name__} does not say how it is trained.")


class AutoencodingEngine(AbstractAutoencoder):
    """Built from three configurations {"target": "package.module.Class", "params": {...}}."""

    def __init__(self, *args, encoder_config, decoder_config, regularizer_config, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder = instantiate_from_config(encoder_config)
        self.decoder = instantiate_from_config(decoder_config)
        self.regularization = instantiate_from_config(regularizer_config)

    def get_last_layer(self):
        return self.decoder.get_last_layer()

    def encode(self, x, return_reg_log: bool = False, unregularized: bool = False):
        """The latents; with `return_reg_log` also what the regulariser tells of them."""
        z = self.encoder(x)
        if unregularized:
            return z, {}
        z, told = self.regularization(z)
        return (z, told) if return_reg_log else z

    def decode(self, z, **kwargs):
        return self.decoder(z, **kwargs)

    def forward(self, x, **additional_decode_kwargs):
        z, told = self.encode(x, return_reg_log=True)
        return z, self.decode(z, **additional_decode_kwargs), told


class AutoencodingEngineLegacy(AutoencodingEngine):
    """Latent diffusion's: 1x1 convolutions around the latents; `ddconfig` holds the numbers of both halves.

    With "batch_norm_latent" (Flux.2) 2x2 latent pixels become channels, normalised by running statistics.
    """

    def __init__(self, embed_dim: int, **kwargs):
        self.max_batch_size = kwargs.pop("max_batch_size", None)
        config = kwargs.pop("ddconfig")
        target = "comfy.ldm.modules.diffusionmodules.model."
        super().__init__(
            encoder_config={"target": target + "Encoder", "params": config},
            decoder_config={"target": target + "Decoder", "params": kwargs.pop("decoder_ddconfig", config)},
            **kwargs,
        )
        conv = ops.Conv3d if config.get("conv3d") else ops.Conv2d
        doubled, channels = 1 + config["double_z"], config["z_channels"]
        self.quant_conv = conv(doubled * channels, doubled * embed_dim, 1)
        self.post_quant_conv = conv(embed_dim, channels, 1)
        self.embed_dim, self.bn = embed_dim, None
        if config.get("batch_norm_latent"):
            self.ps, self.bn_eps, self.bn_momentum = [2, 2], 1e-4, 0.1
            self.bn = nn.BatchNorm2d(4 * channels, eps=self.bn_eps, momentum=self.bn_momentum, affine=False)
            self.bn.eval()

    def get_autoencoder_params(self) -> list:
        return list(self.parameters())

    def _parts(self, x):
        return [x] if self.max_batch_size is None else x.split(self.max_batch_size)

    def _latent_statistics(self, z):
        rows = (self.bn.running_mean, self.bn.running_var)
        mean, variance = (row.to(z).reshape(1, -1, 1, 1) for row in rows)
        return mean, torch.sqrt(variance + self.bn_eps)

    def encode(self, x, return_reg_log: bool = False):
        z = torch.cat([self.quant_conv(self.encoder(part)) for part in self._parts(x)])
        z, told = self.regularization(z)
        if self.bn is not None:
            z = nn.functional.pixel_unshuffle(z, 2)
            mean, deviation = self._latent_statistics(z)
            z = (z - mean) / deviation
        return (z, told) if return_reg_log else z

    def decode(self, z, **decoder_kwargs):
        if self.bn is not None:
            mean, deviation = self._latent_statistics(z)
            z = nn.functional.pixel_shuffle(z * deviation + mean, 2)
        parts = [self.decoder(self.post_quant_conv(part), **decoder_kwargs) for part in self._parts(z)]
        return torch.cat(parts)


class AutoencoderKL(AutoencodingEngineLegacy):
    """The variational autoencoder of Stable Diffusion; its latents are the means."""

    def __init__(self, **kwargs):
        if "lossconfig" in kwargs:
            kwargs["loss_config"] = kwargs.pop("lossconfig")
        regularizer = {"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"}
        super().__init__(regularizer_config=regularizer, **kwargs)
