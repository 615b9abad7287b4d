"""DreamID-V: face swapping in clips by a Wan 2.1 model that sees the clip, a mask, a photo and a pose picture."""
