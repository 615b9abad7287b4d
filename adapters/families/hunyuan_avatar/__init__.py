"""HunyuanVideo-Avatar: talking characters by audio, face masks and a character picture."""
