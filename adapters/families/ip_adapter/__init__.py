"""IP-Adapter of CLIP pictures: plain, plus, plus-face and full-face, for SD1.5 and SDXL."""
