"""PuLID for SDXL: versions 1 and 1.1, published files and the community form."""
