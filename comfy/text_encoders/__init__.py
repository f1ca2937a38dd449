"""Text encoders and tokenizers of models that have several, under the names that packs import."""
