"""AM-Adapter (ICCV 2025): an exemplar picture's look, matched by segmentation maps in augmented self-attention."""
