"""MUSIQ: scores the quality of a picture of any size."""
