"""ID-Animator: learned facial queries for SD1.5, and the AnimateDiff motion layers it was made for."""
