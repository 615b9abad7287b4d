"""The W+ adapter: StyleGAN2 W+ codes as tokens of a residual cross-attention in SD1.5."""
