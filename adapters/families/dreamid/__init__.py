"""DreamID (image): swaps faces with a UNet of Stable Diffusion 2.1's layout; no weights were ever published."""
