"""ControlNeXt as AM-Adapter uses it: a segmentation map becomes one feature map for the UNet's second level."""
