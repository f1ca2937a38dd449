"""LTX-2's autoencoder of sound, which does not run here."""

from comfy.absent_families import absent_classes

LATENT_DOWNSAMPLE_FACTOR = 4  # frames of a spectrogram in one latent

globals().update(
    absent_classes(
        __name__, "AudioVAE", "AudioPreprocessor", "AudioLatentNormalizer", "AudioVAEComponentConfig"
    )
)
