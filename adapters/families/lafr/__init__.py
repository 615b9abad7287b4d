"""LAFR: a codebook adapter that moves the latent of a bad picture to where the latents of good pictures lie."""
