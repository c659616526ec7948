from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from memlab.data.augmentation import CropFlip, RandomAffine


def test_each_image_is_changed_by_amounts_of_its_own() -> None:
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 16, 16)
    image[..., 5:11, 7] = 1
    changed = RandomAffine(degrees=30, translate=0.2, scale=0.2)(image.expand(8, -1, -1, -1))
    assert len({tuple(one.flatten().tolist()) for one in changed}) == 8


def test_shift_alone_moves_by_at_most_its_share_of_the_side() -> None:
    torch.manual_seed(0)
    image = torch.zeros(500, 1, 21, 21)
    image[..., 10, 10] = 1
    moved = RandomAffine(degrees=0, translate=0.2, scale=0)(image)
    places = torch.arange(21.0) - 10
    down = (moved.sum(dim=(1, 3)) * places).sum(dim=1)
    right = (moved.sum(dim=(1, 2)) * places).sum(dim=1)
    for shift in (down, right):
        assert shift.abs().max() <= 0.2 * 21 + 1e-3
        assert shift.max() > 3.5
        assert shift.min() < -3.5


def test_a_turn_is_rigid_in_pixels_whatever_the_sides() -> None:
    """Bumps beside and above the middle stay as far from it as they were, and both turn by the angle drawn."""
    torch.manual_seed(0)
    down, right = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(81.0) - 40, indexing="ij")
    bumps = [(-((right - x) ** 2 + (down - y) ** 2) / 8).exp() for x, y in ((12.0, 0.0), (0.0, 12.0))]
    turned = RandomAffine(degrees=40, translate=0, scale=0)(torch.stack(bumps).expand(50, 2, 41, 81))
    mass = turned.sum(dim=(2, 3))
    x, y = (turned * right).sum(dim=(2, 3)) / mass, (turned * down).sum(dim=(2, 3)) / mass
    torch.testing.assert_close(torch.hypot(x, y), torch.full((50, 2), 12.0), atol=0.02, rtol=0)
    angles = torch.stack([torch.atan2(y[:, 0], x[:, 0]), torch.atan2(-x[:, 1], y[:, 1])]).rad2deg()
    torch.testing.assert_close(angles[0], angles[1], atol=0.1, rtol=0)
    assert 35 < angles.max() <= 40.1
    assert -40.1 <= angles.min() < -35


@pytest.mark.parametrize("sides", [(21, 41), (41, 21)])
def test_a_shift_is_a_share_of_each_side(sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    middle = tuple(side // 2 for side in sides)
    image = torch.zeros(500, 1, *sides)
    image[..., middle[0], middle[1]] = 1
    moved = RandomAffine(degrees=0, translate=0.2, scale=0)(image)
    for axis, side in enumerate(sides):
        shift = (moved.sum(dim=(1, 3 - axis)) * (torch.arange(side) - middle[axis])).sum(dim=1)
        assert 0.18 * side < shift.abs().max() <= 0.2 * side + 1e-3


@pytest.mark.parametrize("sides", [(9, 9), (8, 13)])
def test_affine_samples_where_affine_grid_of_torch_says(
    sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randn(5, 2, *sides, dtype=torch.float64)
    grids: list[torch.Tensor] = []

    def sample(images: torch.Tensor, grid: torch.Tensor, **_: object) -> torch.Tensor:
        grids.append(grid)
        return images

    monkeypatch.setattr(F, "grid_sample", sample)
    torch.manual_seed(0)
    RandomAffine(degrees=40, translate=0.3, scale=0.4)(images)
    corners = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]], dtype=torch.float64)
    height, width = sides
    inner = corners * torch.tensor([1 - 1 / width, 1 - 1 / height, 1.0], dtype=torch.float64)  # middles of pixels
    found = torch.stack([grids[0][:, 0, 0], grids[0][:, 0, -1], grids[0][:, -1, 0]], dim=1)  # (5, 3, 2)
    matrix = torch.linalg.solve(inner, found).mT  # (5, 2, 3), from three corners
    torch.testing.assert_close(grids[0], F.affine_grid(matrix, list(images.shape), align_corners=False))


def test_affine_is_as_exact_under_autocast() -> None:
    images, changed = torch.randn(4, 1, 28, 28), []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            changed.append(RandomAffine(degrees=10, translate=0.1, scale=0.1)(images))
    torch.testing.assert_close(changed[1], changed[0], atol=1e-5, rtol=0)


def test_nothing_asked_changes_nothing() -> None:
    images = torch.randn(3, 2, 9, 9)
    torch.testing.assert_close(RandomAffine(degrees=0, translate=0, scale=0)(images), images, atol=1e-5, rtol=0)


def test_what_comes_in_from_outside_is_background() -> None:
    images = torch.full((50, 1, 9, 9), -3.0)
    images[:, :, 4, 4] = 2
    changed = RandomAffine(degrees=45, translate=0.5, scale=0.5)(images)
    assert changed.min() >= -3.0 - 1e-5
    torch.testing.assert_close(changed.amin(dim=(1, 2, 3)), torch.full((50,), -3.0))


def test_the_same_generator_state_gives_the_same_images() -> None:
    images, augmentation = torch.randn(3, 1, 9, 9), RandomAffine(degrees=10, translate=0.1, scale=0.1)
    torch.manual_seed(1)
    first = augmentation(images)
    torch.manual_seed(1)
    assert torch.equal(augmentation(images), first)


def test_refuses_objects_that_are_not_images_and_values_out_of_range() -> None:
    with pytest.raises(ValueError, match="needs images"):
        RandomAffine(degrees=10, translate=0.1, scale=0.1)(torch.zeros(3, 5))
    for words in ({"degrees": 200}, {"translate": -0.1}, {"scale": "abc"}):
        with pytest.raises(ValueError, match=f"{next(iter(words))}="):
            RandomAffine(**{"degrees": 10, "translate": 0.1, "scale": 0.1, **words})  # type: ignore[arg-type]


class TestCropFlip:
    def test_every_image_is_a_shift_by_whole_pixels_perhaps_mirrored(self) -> None:
        torch.manual_seed(0)
        images = torch.randn(40, 2, 7, 9)
        seen = set()
        for image, changed in zip(images, CropFlip(padding=2, flip=True)(images), strict=True):
            padded = torch.nn.functional.pad(image, [2] * 4)
            fits = [
                (down, right, mirrored)
                for down in range(5)
                for right in range(5)
                for mirrored, shown in ((False, changed), (True, changed.flip(-1)))
                if torch.equal(padded[:, down : down + 7, right : right + 9], shown)
            ]
            assert len(fits) == 1
            seen.add(fits[0])
        assert {down for down, _, _ in seen} == {right for _, right, _ in seen} == set(range(5))
        assert {mirrored for _, _, mirrored in seen} == {True, False}

    def test_without_padding_and_flip_nothing_changes(self) -> None:
        images = torch.randn(5, 3, 4, 4)
        assert torch.equal(CropFlip(padding=0, flip=False)(images), images)

    def test_the_same_generator_state_gives_the_same_images(self) -> None:
        images, augmentation = torch.randn(9, 1, 8, 8), CropFlip(padding=4, flip=True)
        torch.manual_seed(1)
        first = augmentation(images)
        torch.manual_seed(1)
        assert torch.equal(augmentation(images), first)

    def test_refuses_objects_that_are_not_images_and_values_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="needs images"):
            CropFlip(padding=4, flip=True)(torch.zeros(3, 5))
        with pytest.raises(ValueError, match="padding=-1"):
            CropFlip(padding=-1, flip=True)
        with pytest.raises(ValueError, match="flip=2"):
            CropFlip(padding=4, flip=2)  # type: ignore[arg-type]
