"""Detection policy and retries with a fake detector; faces given by hand."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.detect import detect_faces
from likeness_pack.faces.errors import BadImage, BadLandmarks, BadMask, FaceChoice, NoFaceFound
from likeness_pack.faces.landmarks import landmarks5_from_boxes
from likeness_pack.faces.manual import boxes_around, faces_from_user
from likeness_pack.faces.types import Faces


class SquareDetector:
    """Finds bright squares that do not touch the rim and whose side lies between two limits."""

    name = "squares"
    default_score = 0.5
    network = None

    def __init__(self, least=10, most=1000, rim=1):
        self.least, self.most, self.rim = least, most, rim
        self.calls = []

    def __call__(self, images, score):
        self.calls.append((tuple(images.shape), score))
        return [self.look(image) for image in images]

    def look(self, image):
        rows, columns = torch.nonzero(image[..., 0] > 0.5, as_tuple=True)
        if not len(rows):
            return Faces.none()
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        height, width = image.shape[:2]
        inside = (
            box[0] >= self.rim and box[1] >= self.rim and box[2] <= width - self.rim and box[3] <= height - self.rim
        )
        if not inside or not self.least <= float(box[2] - box[0]) <= self.most:
            return Faces.none()
        return Faces(box[None], landmarks5_from_boxes(box[None]), torch.ones(1))


def picture(low, high, size=100):
    image = torch.zeros(size, size, 3)
    image[low:high, low:high] = 1
    return image


BLANK = torch.zeros(100, 100, 3)


def test_faces_of_a_batch():
    detector = SquareDetector()
    batch, kept = detect_faces(torch.stack([picture(20, 60), picture(30, 50)]), detector)
    assert batch.counts == (1, 1) and kept == [0, 1] and batch.notes == ()
    assert batch.image_size == (100, 100) and batch.detector == "squares"
    assert batch.images[1].boxes.tolist() == [[30, 30, 50, 50]]
    assert detector.calls == [((2, 100, 100, 3), 0.5)]


def test_one_blank_of_five_stays_under_keep():
    images = torch.stack([picture(20, 60), picture(20, 60), BLANK, picture(20, 60), picture(20, 60)])
    batch, kept = detect_faces(images, SquareDetector(), on_missing_face="keep")
    assert batch.counts == (1, 1, 0, 1, 1) and kept == [0, 1, 2, 3, 4]
    assert any("image 2" in note and "kept" in note for note in batch.notes)


def test_skip_says_which_pictures_are_left():
    batch, kept = detect_faces(torch.stack([BLANK, picture(20, 60), BLANK]), SquareDetector(), on_missing_face="skip")
    assert batch.counts == (1,) and kept == [1]
    assert any("images 0, 2" in note and "left out" in note for note in batch.notes)


def test_skip_of_all_leaves_an_empty_batch_with_its_size():
    batch, kept = detect_faces(BLANK[None], SquareDetector(), on_missing_face="skip")
    assert len(batch) == 0 and kept == [] and batch.image_size == (100, 100)


def test_a_number_is_no_detector():
    with pytest.raises(FaceChoice, match="Load Face Detector"):
        detect_faces(BLANK[None], 5)


def test_error_names_every_picture_and_what_was_tried():
    images = torch.stack([BLANK, picture(20, 60), BLANK, BLANK, BLANK])
    with pytest.raises(NoFaceFound) as caught:
        detect_faces(images, SquareDetector(), label="photo")
    message = str(caught.value)
    assert "photos 0, 2-4" in message and "4 of 5" in message and "squares" in message
    assert "border of half a side" in message and "twice the size" in message and "on_missing_face" in message


def test_a_close_up_is_found_with_a_border_and_mapped_back():
    detector = SquareDetector()
    batch, _ = detect_faces(torch.stack([picture(20, 60), picture(0, 100)]), detector)
    assert batch.images[1].boxes.tolist() == [[0, 0, 100, 100]]
    torch.testing.assert_close(batch.images[1].landmarks5, landmarks5_from_boxes(torch.tensor([[0.0, 0, 100, 100]])))
    assert len(batch.notes) == 1 and "image 1" in batch.notes[0] and "border" in batch.notes[0]
    assert [shape for shape, _ in detector.calls] == [(2, 100, 100, 3), (1, 200, 200, 3)]


def test_a_small_face_is_found_enlarged():
    detector = SquareDetector(least=30)
    batch, _ = detect_faces(picture(40, 60)[None], detector)
    assert len(detector.calls) == 3 and "enlarged" in batch.notes[0]
    assert (batch.images[0].boxes - torch.tensor([[40.0, 40, 60, 60]])).abs().max() <= 0.5


def test_a_large_picture_is_shrunk():
    detector = SquareDetector(most=500)
    image = torch.zeros(1100, 1100, 3)
    image[100:900, 100:900] = 1
    batch, _ = detect_faces(image[None], detector)
    assert "shrunk" in batch.notes[0] and detector.calls[-1][0] == (1, 550, 550, 3)
    assert (batch.images[0].boxes - torch.tensor([[100.0, 100, 900, 900]])).abs().max() <= 1


def test_without_retry_there_is_one_look():
    detector = SquareDetector()
    batch, _ = detect_faces(picture(0, 100)[None], detector, on_missing_face="keep", retry=False)
    assert batch.counts == (0,) and len(detector.calls) == 1


def test_score_is_the_detectors_own_unless_given():
    detector = SquareDetector()
    detect_faces(picture(20, 60)[None], detector, score=0.25)
    assert detector.calls[0][1] == 0.25


def test_progress_counts_all_pictures_and_can_cancel():
    images = picture(20, 60, 2000)[None].expand(3, -1, -1, -1)
    seen = []
    detect_faces(images, SquareDetector(), on_progress=lambda done, count: seen.append((done, count)))
    assert seen == [(2, 3), (3, 3)]

    class CancelledError(Exception):
        pass

    def cancel(done, count):
        raise CancelledError

    detector = SquareDetector()
    with pytest.raises(CancelledError):
        detect_faces(images, detector, on_progress=cancel)
    assert len(detector.calls) == 1


def test_bad_arguments():
    with pytest.raises(FaceChoice, match="ignore"):
        detect_faces(BLANK[None], SquareDetector(), on_missing_face="ignore")
    with pytest.raises(BadImage):
        detect_faces(torch.zeros(0, 10, 10, 3), SquareDetector())
    with pytest.raises(BadImage):
        detect_faces(torch.full((1, 10, 10, 3), float("nan")), SquareDetector())


def test_a_picture_of_one_pixel():
    batch, _ = detect_faces(torch.zeros(1, 1, 1, 3), SquareDetector(), on_missing_face="keep")
    assert batch.counts == (0,)


@pytest.mark.parametrize(
    "text",
    [
        "10,20,50,70; 60,10,90,40",
        " 10 20 50 70;(60, 10), (90, 40) ;",
        "１０，20，50，70；60，10，90，40",
        "[[10,20,50,70],[60,10,90,40]]",
    ],
)
def test_boxes_by_hand(text):
    batch = faces_from_user((100, 120), 3, boxes_text=text)
    assert batch.counts == (2, 2, 2) and batch.detector == "user"
    assert batch.images[0].boxes.tolist() == [[10, 20, 50, 70], [60, 10, 90, 40]]
    torch.testing.assert_close(batch.images[0].landmarks5, landmarks5_from_boxes(batch.images[0].boxes))
    assert "approximated" in batch.notes[0]


def test_one_box_as_plain_json():
    assert faces_from_user((100, 100), boxes_text="[1, 2, 30, 40.5]").images[0].boxes.tolist() == [[1, 2, 30, 40.5]]


@pytest.mark.parametrize(
    "text",
    ["1,2,3", "1,2,3,4,5", "a,b,c,d", "[[1,2,3]]", "[1,2,", '{"a": 1}', "50,20,10,70", "10,10,10,40", "1e999,0,5,5"]
    + ["[[1,2,NaN,4]]", "[[1,2,true,4]]", "200,10,300,40", ";", "[]", "[[[[" * 2000],
)
def test_bad_boxes_are_told(text):
    with pytest.raises(BadLandmarks):
        faces_from_user((100, 100), boxes_text=text)


POINTS = "30,40 50,40 40,50 32,60 48,60"


@pytest.mark.parametrize(
    "text", [POINTS, "[[[30,40],[50,40],[40,50],[32,60],[48,60]]]", "[[30,40],[50,40],[40,50],[32,60],[48,60]]"]
)
def test_points_by_hand_draw_their_boxes(text):
    batch = faces_from_user((100, 100), points_text=text)
    assert batch.images[0].landmarks5[0].tolist() == [[30, 40], [50, 40], [40, 50], [32, 60], [48, 60]]
    left, top, right, bottom = batch.images[0].boxes[0].tolist()
    assert left < 30 and top < 40 and right > 50 and bottom > 60
    assert "boxes" in batch.notes[0]


def test_points_in_given_boxes_need_no_note():
    batch = faces_from_user((100, 100), boxes_text="20,20,60,70", points_text=POINTS)
    assert batch.notes == () and batch.images[0].boxes.tolist() == [[20, 20, 60, 70]]
    with pytest.raises(BadLandmarks, match="2 boxes"):
        faces_from_user((100, 100), boxes_text="20,20,60,70; 1,1,9,9", points_text=POINTS)


def test_points_of_the_other_order_are_refused():
    with pytest.raises(BadLandmarks, match="left and right"):
        faces_from_user((100, 100), points_text="50,40 30,40 40,50 48,60 32,60")


def test_boxes_around_is_the_way_back_of_points_in_boxes():
    boxes = torch.tensor([[10.0, 20, 90, 120]])
    torch.testing.assert_close(boxes_around(landmarks5_from_boxes(boxes)), boxes, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(50, 100), (1, 50, 100), (1, 100, 200)])
def test_each_blob_of_a_mask_is_a_face(shape):
    mask = torch.zeros(shape)
    step = shape[-1] // 100
    mask[..., 10 * step : 30 * step, 60 * step : 80 * step] = 1
    mask[..., 20 * step : 45 * step, 5 * step : 25 * step] = 0.9
    batch = faces_from_user((100, 200), 2, mask=mask)
    assert batch.counts == (2, 2)
    assert batch.images[0].boxes.tolist() == [[10, 40, 50, 90], [120, 20, 160, 60]]
    assert "approximated" in batch.notes[0]


def test_a_mask_beside_boxes_is_not_used_and_said():
    batch = faces_from_user((100, 200), 2, "10,20,50,70", mask=torch.ones(1, 100, 200))
    assert batch.counts == (1, 1) and "mask not used: boxes or points are given" in batch.notes


def test_a_mask_for_each_picture_and_specks():
    masks = torch.zeros(2, 100, 100)
    masks[0, 10:40, 10:40] = 1
    masks[1, 50:90, 50:90] = 1
    masks[1, 3:5, 3:5] = 1
    batch = faces_from_user((100, 100), 2, mask=masks)
    assert batch.images[0].boxes.tolist() == [[10, 10, 40, 40]]
    assert batch.images[1].boxes.tolist() == [[50, 50, 90, 90]]
    assert any("mask 1: 1 blobs" in note for note in batch.notes)


def test_masks_that_do_not_fit():
    with pytest.raises(BadMask):
        faces_from_user((100, 100), 2, mask=torch.ones(3, 10, 10))
    with pytest.raises(BadMask):
        faces_from_user((100, 100), mask=torch.ones(0, 10))
    with pytest.raises(NoFaceFound, match="face mask 0"):
        faces_from_user((100, 100), mask=torch.zeros(10, 10))
    with pytest.raises(NoFaceFound):
        faces_from_user((100, 100))
