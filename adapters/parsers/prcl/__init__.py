"""PRCL: a segmentation network that says how sure it is of each place."""
