"""The encoder of Whisper: speech as the talking-face systems hear it."""
