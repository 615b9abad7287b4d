"""Points of MediaPipe's face mesh that DreamID-V draws; numbers of the mesh's published topology.

The choice follows ``express_adaption`` of bytedance/DreamID-V.
"""

from __future__ import annotations

# Drawn as dots in the pose picture.
# fmt: off
DRAWN = (
    0, 1, 2, 4, 5, 6, 7, 10, 13, 14, 17, 21, 24, 33, 37, 39, 40, 46, 48, 52, 53, 54, 55, 58, 61, 63, 64, 65, 66,
    67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 94, 95, 98, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146,
    148, 149, 150, 152, 153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185,
    191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 278, 282, 283, 284, 285, 288, 291, 293, 294, 295,
    296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 327, 332, 334, 336, 338, 356, 361, 362, 365,
    373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409,
    415, 454, 466, 468, 473,
)
# fmt: on
# Corners of the mask, in order around the face.
# fmt: off
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
    150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on
# The person's right eye.
# fmt: off
RIGHT_EYE = (
    33, 7, 163, 144, 145, 153, 154, 155, 246, 161, 160, 159, 158, 157, 173, 133,
)
# fmt: on
# The person's left eye.
# fmt: off
LEFT_EYE = (
    249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, 263,
)
# fmt: on
# Points of the mesh proper; the two irises follow it, five points each, right before left.
MESH = 468
RIGHT_IRIS = range(468, 473)
LEFT_IRIS = range(473, 478)
