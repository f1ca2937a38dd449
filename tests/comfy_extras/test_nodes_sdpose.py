"""Poses drawn, boxes around their faces, and pictures cropped to boxes."""

import pytest
import torch

from comfy_extras import nodes_sdpose as nodes

KINDS = {"pose": 18, "foot": 6, "face": 70, "hand_right": 21, "hand_left": 21}
ALL = {"draw_body": True, "draw_hands": True, "draw_face": True, "draw_feet": True, "draw_head": True}


def person(**points):
    """Points by "kind_number"; all others have the score 0."""
    lists = {f"{kind}_keypoints_2d": [0.0] * (3 * count) for kind, count in KINDS.items()}
    for name, (x, y) in points.items():
        kind, _, number = name.rpartition("_")
        lists[f"{kind}_keypoints_2d"][3 * int(number) : 3 * int(number) + 3] = [x, y, 1.0]
    return lists


def frame(*people, width=64, height=48):
    return {"canvas_width": width, "canvas_height": height, "people": list(people)}


def drawn(*frames, **options):
    options = {**ALL, "stick_width": 2, "face_point_size": 1, "score_threshold": 0.3, **options}
    return nodes.SDPoseDrawKeypoints.execute(list(frames), **options).args[0]


def colour(picture, x, y):
    return [round(255 * float(value)) for value in picture[y, x]]


def test_limbs_and_points_have_the_colours_of_their_places():
    # Neck (1) to the right shoulder (2) is the first stick: red. Points: 1 is orange, 2 is a lighter one.
    (picture,) = drawn(frame(person(pose_1=(10, 20), pose_2=(50, 20))))
    assert colour(picture, 30, 20) == colour(picture, 30, 22) == [255, 0, 0]
    assert colour(picture, 30, 23) == [0, 0, 0]
    assert colour(picture, 10, 16) == [255, 85, 0]
    assert colour(picture, 54, 20) == [255, 170, 0]
    assert colour(picture, 55, 20) == [0, 0, 0]


def test_a_hand_is_a_rainbow_with_blue_points_and_a_face_is_white_points():
    (picture,) = drawn(frame(person(hand_left_0=(10, 40), hand_left_5=(40, 40), face_3=(30, 10))))
    assert colour(picture, 25, 40) == colour(picture, 25, 41) == [203, 255, 0]
    assert colour(picture, 10, 36) == [0, 0, 255]
    assert colour(picture, 31, 10) == [255, 255, 255]
    assert colour(picture, 32, 10) == [0, 0, 0]


@pytest.mark.parametrize(
    ("switch", "points"),
    [
        ("draw_body", {"pose_8": (20, 20)}),
        ("draw_head", {"pose_14": (20, 20)}),
        ("draw_feet", {"foot_2": (20, 20)}),
        ("draw_hands", {"hand_right_4": (20, 20)}),
        ("draw_face", {"face_67": (20, 20)}),
    ],
)
def test_each_part_has_its_switch(switch, points):
    assert drawn(frame(person(**points))).any()
    assert not drawn(frame(person(**points)), **{switch: False}).any()
    assert not drawn(frame(person(**points)), score_threshold=1.1).any()


def test_no_keypoints_are_a_small_black_picture_and_every_frame_has_its_own():
    assert drawn().shape == (1, 64, 64, 3)
    assert [bool(picture.any()) for picture in drawn(frame(), frame(person(pose_8=(9, 9))))] == [False, True]


def test_a_person_with_the_wrong_number_of_points_is_refused():
    wrong = {**person(), "pose_keypoints_2d": [1.0] * 9}
    with pytest.raises(ValueError, match="pose_keypoints_2d of a person has 9 numbers. It has 54"):
        drawn(frame(wrong))


def face(points, width=200, height=200, **options):
    keypoints = [frame({"face_keypoints_2d": [v for x, y in points for v in (x, y, 1.0)]}, width=width)]
    keypoints[0]["canvas_height"] = height
    options = {"scale": 4.0, "force_square": False, **options}
    return nodes.SDPoseFaceBBoxes.execute(keypoints, **options).args[0][0]


def test_the_box_of_a_face_has_its_area_scaled_and_grows_mostly_upwards():
    # 20x40 with four times the area is 40x80; of the 40 more in height, 30 are above.
    assert face([(100, 100), (120, 140)]) == [{"x": 90, "y": 70, "width": 40, "height": 80}]
    assert face([(100, 100), (120, 140)], force_square=True) == [
        {"x": 70, "y": 70, "width": 80, "height": 80}
    ]


def test_the_box_of_a_face_stays_in_the_picture():
    assert face([(0, 10), (20, 50)]) == [{"x": 0, "y": 0, "width": 30, "height": 60}]
    assert face([(180, 100), (200, 140)], force_square=True) == [
        {"x": 120, "y": 70, "width": 80, "height": 80}
    ]


def test_a_face_without_area_has_no_box():
    assert face([(10, 10), (10, 50)]) == []


def crop(image, bboxes, width=64, height=64, padding=0, keep_aspect="stretch"):
    return nodes.CropByBBoxes.execute(image, bboxes, width, height, padding, keep_aspect).args[0]


def test_each_frame_is_cropped_to_all_of_its_boxes():
    image = torch.rand(2, 80, 100, 3)
    boxes = [[{"x": 4, "y": 8, "width": 30, "height": 10}, {"x": 20, "y": 40, "width": 48, "height": 32}]]
    assert torch.equal(crop(image, boxes), image[:, 8:72, 4:68])
    assert torch.equal(crop(image, [[], *boxes]), image[1:, 8:72, 4:68])
    assert torch.equal(crop(image, []), image)
    one = {"x": 6, "y": 10, "width": 60, "height": 60}
    assert torch.equal(crop(image, one, padding=2), image[:, 8:72, 4:68])


def test_a_padded_crop_keeps_its_proportions_inside_black():
    cropped = crop(torch.ones(1, 80, 100, 3), {"x": 0, "y": 0, "width": 64, "height": 32}, keep_aspect="pad")
    assert cropped[:, 16:48].eq(1).all()
    assert not cropped[:, :16].any() and not cropped[:, 48:].any()


def test_a_box_outside_of_the_picture_takes_the_upper_middle():
    image = torch.arange(100.0).view(1, 1, 100, 1).expand(1, 100, 100, 3)
    cropped = crop(image, {"x": 500, "y": 0, "width": 5, "height": 5}, width=30, height=30)
    assert torch.equal(cropped, image[:, :30, 35:65])
