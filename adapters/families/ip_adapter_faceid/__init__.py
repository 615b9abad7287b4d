"""IP-Adapter-FaceID: plain, Plus, PlusV2 and Portrait, for SD1.5 and SDXL."""
