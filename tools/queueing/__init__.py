"""Feeding workflows to a running ComfyUI from a terminal; runs on the standard library alone."""
