"""Face swappers: networks that give an aligned face the identity of another, behind the one class of ``base``."""
