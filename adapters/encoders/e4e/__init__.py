"""e4e (Encoder4Editing): a face as a StyleGAN2 W+ code."""
