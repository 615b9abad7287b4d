"""Stand-in checkpoints: the published names, shapes and containers, with weights that mean nothing."""
