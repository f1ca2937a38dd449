"""The UNet, the autoencoder and the transformer of latent diffusion."""
