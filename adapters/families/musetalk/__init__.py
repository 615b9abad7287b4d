"""MuseTalk (v1 and v1.5): paints the mouth of a face after the sound, in one call of a UNet on latents."""
