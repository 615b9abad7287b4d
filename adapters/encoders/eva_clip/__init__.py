"""EVA02-CLIP, the picture encoder of PuLID."""
