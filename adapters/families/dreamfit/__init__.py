"""DreamFit: the appearance of a garment (or any subject) read from a reference pass of SD1.5 or Flux."""
