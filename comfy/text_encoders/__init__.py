"""Text encoders and tokenizers of the model families, under the module names that packs import."""
