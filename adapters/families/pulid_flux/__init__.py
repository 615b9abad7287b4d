"""PuLID for FLUX.1-dev: identity cross-attention between the blocks of the transformer."""
