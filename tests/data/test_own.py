"""Data sets of users' classes: pairs, labels, lengths, streams, and torch's DataLoader."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from fbnetv3.classification.own import OwnParts
from fbnetv3.config import get_cfg
from fbnetv3.data import (
    DataError,
    EvalTransform,
    ImageStream,
    TrainLoader,
    TrainTransform,
    as_image_dataset,
    build_dataset,
)
from fbnetv3.data.streams import StreamEvalLoader, StreamTrainLoader
from fbnetv3.registries import DATASETS


class Pairs(Dataset):
    """Items of a list."""

    def __init__(self, items, **attributes):
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def pixels(level: int, side: int = 4) -> torch.Tensor:
    return torch.full((3, side, side), level, dtype=torch.uint8)


@pytest.mark.parametrize(
    "image",
    [
        pixels(51),
        pixels(51).float() / 255,
        Image.new("RGB", (4, 4), (51, 51, 51)),
        Image.new("L", (4, 4), 51),
        np.full((4, 4, 3), 51, np.uint8),
    ],
)
@pytest.mark.parametrize("label", [1, np.int64(1), torch.tensor(1), torch.tensor([1])])
def test_images_and_labels_of_all_kinds(image, label):
    dataset = as_image_dataset(Pairs([(image, 0), {"image": image, "label": label}]), "mine")
    assert dataset.targets == [0, 1]
    assert dataset.classes == ["0", "1"]
    assert np.array_equal(np.asarray(dataset.image(1)), np.full((4, 4, 3), 51))
    assert dataset.summary() == "mine: 2 images, 2 classes: 0 1, 1 1"


def test_labels_and_classes_are_taken_from_attributes_without_reading():
    class Lazy(Pairs):
        def __getitem__(self, i):
            assert i == 0, "only the first item is read, as a check"
            return super().__getitem__(i)

    items = [(pixels(1), 0), (pixels(2), 1), (pixels(3), 1)]
    full = Lazy(items, targets=torch.tensor([0, 1, 1]), classes=["cat", "dog"])
    assert as_image_dataset(full, "mine").targets == [0, 1, 1]
    part = as_image_dataset(Subset(full, [0, 2]), "part")
    assert (part.targets, part.classes) == ([0, 1], ["cat", "dog"])
    assert as_image_dataset(ConcatDataset([full, full]), "both").targets == [0, 1, 1, 0, 1, 1]
    changed = Pairs(items, targets=[5, 5, 5], target_transform=lambda y: y)
    assert as_image_dataset(changed, "changed").targets == [0, 1, 1]


def part(classes: object) -> Pairs:
    """Returns two images with labels 0 and 1; ``classes`` None: without names."""
    items = [(pixels(1), 0), (pixels(2), 1)]
    return Pairs(items) if classes is None else Pairs(items, classes=classes)


@pytest.mark.parametrize(
    ("parts", "classes"),
    [
        ([["cat", "dog"], ["cat", "dog"]], ["cat", "dog"]),
        ([["cat", "dog"], ("cat", "dog")], ["cat", "dog"]),
        ([None, ["cat", "dog"]], ["cat", "dog"]),
        ([["cat", "dog"], None], ["cat", "dog"]),
        ([None, None], ["0", "1"]),
    ],
)
def test_parts_with_the_same_classes_or_without_names(parts, classes):
    joined = as_image_dataset(ConcatDataset([part(names) for names in parts]), "joined")
    assert (joined.classes, joined.targets) == (classes, [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("first", "other", "message"),
    [
        (["cat", "dog"], ["dog", "cat"], "class 0 is 'cat' in part 0 and 'dog' in part 2"),
        (["cat", "dog"], ["cat", "owl"], "class 1 is 'dog' in part 0 and 'owl' in part 2"),
        (["cat", "dog"], ["cat", "dog", "owl"], "part 0 has 2 classes and part 2 has 3"),
        (["cat", "dog", "owl"], ["cat", "dog"], "part 0 has 3 classes and part 2 has 2"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: Subset(x, [0, 1])])
def test_parts_with_other_classes_are_refused_without_names_for_all(first, other, message, wrap):
    parts = ConcatDataset([part(first), part(None), wrap(part(other))])
    joined = wrap(parts)
    message = f"mine: {message}; .*the same classes in the same order"
    with pytest.raises(DataError, match=message) as caught:
        as_image_dataset(joined, "mine")
    assert "\n" not in str(caught.value)
    assert as_image_dataset(joined, "mine", ["x", "y", "z"]).classes == ["x", "y", "z"]
    parts.classes = ["u", "v"]
    assert as_image_dataset(joined, "mine").classes == ["u", "v"]
    parts.classes = []
    with pytest.raises(DataError, match=message):
        as_image_dataset(joined, "mine")


def test_parts_with_other_classes_are_refused_before_a_training():
    joined = ConcatDataset([part(["cat", "dog"]), part(["dog", "cat"])])
    with pytest.raises(DataError, match="test_set: class 0 is 'cat' in part 0 and 'dog' in part"):
        OwnParts(None, part(["cat", "dog"]), joined).datasets(get_cfg())


class NoLength(Dataset):
    def __getitem__(self, i):
        return pixels(0), 0


class NoItems:
    def __len__(self):
        return 2


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            NoLength(),
            r"mine: a NoLength has no length \(__len__\); allowed: a map-style",
        ),
        (NoItems(), r"mine: a NoItems has no __getitem__; allowed"),
        (iter([(pixels(0), 0)]), r"mine: a list_iterator has no length"),
        (Pairs([]), "mine is empty; allowed: one image or more"),
        (Pairs([(pixels(0), 0), (pixels(0), -1)]), r"mine\[1\]: label -1 is out of range; allowed"),
        (Pairs([(pixels(0), 3)], classes=["a", "b"]), r"mine\[0\]: label 3 is out of .*: 0 to 1"),
        (Pairs([(pixels(0), "cat")]), r"mine\[0\]: the label is a str 'cat'; allowed: the index"),
        (Pairs([(pixels(0), 0.5)]), r"mine\[0\]: the label is a float 0.5; allowed"),
        (Pairs([(pixels(0), True)]), r"mine\[0\]: the label is a bool True; allowed"),
        (Pairs([(pixels(0), torch.zeros(3))]), r"\[0\]: the label is a Tensor of shape \(3,\)"),
        (
            Pairs([pixels(0)]),
            r"mine\[0\]: an item is a Tensor of 3; allowed: a pair \(image",
        ),
        (Pairs([(pixels(0), 0, 1)]), r"mine\[0\]: an item is a tuple of 3; allowed"),
        (Pairs([7]), r"mine\[0\]: an item is a int; allowed"),
        (
            Pairs([(torch.zeros(8, 4, 4), 0)]),
            r"mine\[0\]: .*of shape \(8, 4, 4\); allowed",
        ),
        (Pairs([(torch.zeros(2, 3, 4, 4), 0)]), r"mine\[0\]: .*shape \(2, 3, 4, 4\); allowed"),
        (Pairs([(torch.zeros(3, 4, 4) - 1, 0)]), r"mine\[0\]: .*from -1 to -1; allowed: 0 to 1"),
        (Pairs([(7, 0)]), r"mine\[0\]: .*int"),
        (Pairs([(None, 0)]), r"mine\[0\]: "),
        (TensorDataset(pixels(0)[None]), r"mine\[0\]: an item is a tuple of 1; allowed"),
    ],
)
def test_data_sets_that_are_not_allowed_give_one_line(dataset, message):
    with pytest.raises(DataError, match=message) as caught:
        as_image_dataset(dataset, "mine")
    assert "\n" not in str(caught.value)


def test_an_error_in_the_users_code_names_the_item():
    class Broken(Pairs):
        def __getitem__(self, i):
            if i:
                raise KeyError("file of 1")
            return super().__getitem__(i)

    with pytest.raises(DataError, match=r"mine\[1\] cannot be read \(KeyError: 'file of 1'\)"):
        as_image_dataset(Broken([(pixels(0), 0)] * 2), "mine")


class Noisy(Pairs):
    """Draws from three generators, as random transforms of users do."""

    def __getitem__(self, i):
        noise = torch.randint(60, ()), random.randrange(60), np.random.randint(60)  # noqa: NPY002
        return pixels(int(sum(noise))), i % 2


def test_random_transforms_of_a_data_set_are_reproducible():
    dataset = as_image_dataset(Noisy([0] * 8, targets=[0, 1] * 4), "noisy")
    transform = TrainTransform(4, crop="none", flip=False)

    def batches(start, number, workers=0):
        loader = TrainLoader(
            dataset, transform, total_batch=4, seed=3, num_workers=workers, uint8=True
        )
        return [batch[0] for batch, _ in zip(loader.batches(start), range(number), strict=False)]

    states = random.getstate()[1], np.random.get_state()[1].tolist()  # noqa: NPY002
    first = batches(0, 4)
    assert states == (random.getstate()[1], np.random.get_state()[1].tolist())  # noqa: NPY002
    assert len({int(image[0, 0, 0]) for batch in first for image in batch}) > 6
    for one, other in zip(first[2:], batches(2, 2, workers=1), strict=True):
        assert torch.equal(one, other)


def test_a_built_in_data_set_is_a_torch_dataset():
    digits = build_dataset("digits_test")
    assert isinstance(digits, Dataset)
    image, label = digits[-1]
    assert (image.mode, label) == ("RGB", digits.targets[-1])
    with pytest.raises(IndexError, match="digits_test has 360 images; there is no image 360"):
        digits[360]
    loader = DataLoader(digits.transformed(EvalTransform(32)), batch_size=100)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [100, 100, 100, 60]
    assert batches[0][0].shape == (100, 3, 32, 32)
    assert torch.cat([labels for _, labels in batches]).tolist() == digits.targets


def test_a_registered_function_may_return_any_dataset(monkeypatch):
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    DATASETS.register("my/pairs")(lambda: Pairs([(pixels(9), 0)]))
    assert build_dataset("my/pairs").name == "my/pairs"
    DATASETS.register("my/stream")(lambda: ImageStream([], 1, num_classes=1))
    with pytest.raises(DataError, match=r"my/stream is a stream; pass it to fbnetv3\.train"):
        build_dataset("my/stream")


def test_data_sets_of_torchvision_and_hugging_face(tmp_path: Path):
    import datasets
    from torchvision.datasets import ImageFolder

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4), "red").save(tmp_path / name / "1.png")
    folder = as_image_dataset(ImageFolder(str(tmp_path)), "folder")
    assert (folder.classes, folder.targets, folder.image(1).size) == (["a", "b"], [0, 1], (4, 4))
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    rows = datasets.Dataset.from_dict(
        {"image": [str(tmp_path / "a" / "1.png")], "label": [1]},
        features=datasets.Features(features),
    )
    hugging_face = as_image_dataset(rows, "hf")
    assert (hugging_face.classes, hugging_face.targets) == (["a", "b"], [1])
    assert hugging_face.image(0).getpixel((0, 0)) == (255, 0, 0)


class Shards:
    """An iterable whose order depends on the epoch; counts the items that it yields."""

    def __init__(self, size=10):
        self.size, self.epoch, self.count = size, -1, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for i in range(self.size):
            self.count += 1
            yield pixels((i + 3 * self.epoch) % 10), i % 2


def _stream(size=10, length=8):
    return ImageStream(Shards(size), length, classes=["even", "odd"], name="shards")


@pytest.mark.parametrize("start", [0, 1, 2, 5])
def test_a_stream_starts_at_any_batch_with_the_same_images(start):
    transform = TrainTransform(4, crop="none", flip=False)

    def values(first, number, rank=0, world_size=1):
        loader = StreamTrainLoader(
            _stream(), transform, total_batch=4, seed=0, rank=rank, world_size=world_size
        )
        assert loader.iters_per_epoch == 2
        batches = zip(loader.batches(first), range(number), strict=False)
        return [images[:, 0, 0, 0].tolist() for (images, _), _ in batches]

    all_values = values(0, 8)
    assert all_values[:3] == [[0, 1, 2, 3], [4, 5, 6, 7], [3, 4, 5, 6]]
    assert values(start, 3) == all_values[start : start + 3]
    halves = [values(start, 3, rank, 2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == all_values[start : start + 3]


def test_a_stream_is_evaluated_once_and_shared_by_ranks():
    def labels(rank, world_size):
        loader = StreamEvalLoader(
            _stream(10, 9), EvalTransform(4), batch_size=4, rank=rank, world_size=world_size
        )
        return [len(y) for _, y in loader], sum(int(y.sum()) for _, y in loader)

    assert labels(0, 1) == ([4, 4, 1], 4)
    assert labels(0, 2) == ([4, 1], 0)
    assert labels(1, 2) == ([4], 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageStream(Shards(), num_classes=2), r"a Shards has no length; give ImageStream"),
        (lambda: ImageStream(Shards(), 0, num_classes=2), "the length is 0; allowed: 1 or more"),
        (lambda: ImageStream(Shards(), 5), r"the classes are unknown; give classes=\[...\] or num"),
        (
            lambda: list(_stream(5, 8).items(0)),
            r"shards ended after 5 of 8 images; give",
        ),
        (
            lambda: list(ImageStream(Shards(), 5, num_classes=1).items(0)),
            r"stream, item 1: label 1 is out of range; allowed with 1 classes: 0 to 0",
        ),
    ],
)
def test_streams_that_are_not_allowed_give_one_line(make, message):
    with pytest.raises(DataError, match=message):
        make()
