"""AM-Adapter (ICCV 2025): appearance of an exemplar picture, matched by segmentation maps, in augmented self-attention."""
