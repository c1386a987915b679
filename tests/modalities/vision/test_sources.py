"""Every kind of source gives the same pictures, labels and names; what is no source says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from polysense.errors import PolysenseError
from polysense.modalities.vision.sources import read_pictures
from polysense.modalities.vision.store import Pictures

COLOURS = {"blue": (0, 0, 255), "green": (0, 128, 0), "red": (255, 0, 0)}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network in tests")

    monkeypatch.setattr(datasets, "load_dataset", refuse)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """``classes/blue/0.png`` and so on: three colours, two pictures each."""
    for name in COLOURS:
        (tmp_path / "classes" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (6, 4), name).save(tmp_path / "classes" / name / f"{i}.png")
    return tmp_path / "classes"


@pytest.fixture
def images() -> list[Image.Image]:
    return [Image.new("RGB", (6, 4), name) for name in COLOURS]


def colours(pictures: Pictures) -> list[tuple[int, ...]]:
    pixels = pictures.__getitems__(range(len(pictures)))["pixels"]
    return [tuple(pixel) for pixel in pixels[:, :, 0, 0].tolist()]


def read(source: Any, **options: Any) -> Pictures:
    return read_pictures(source, size=8, **options)


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(PolysenseError) as error:
        read(source, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


# --- files


def test_subfolders_are_classes(classes: Path) -> None:
    (classes / ".hidden").mkdir()
    Image.new("RGB", (2, 2)).save(classes / ".hidden" / "a.png")
    Image.new("RGB", (2, 2)).save(classes / "red" / ".a.png")
    (classes / "Thumbs.db").write_bytes(b"no picture")
    (classes / "red" / "notes.txt").write_text("no picture")
    pictures = read(str(classes))
    assert pictures.label == "label"
    assert pictures.identity is None
    assert pictures.table["name"].tolist() == [f"{name}/{i}.png" for name in COLOURS for i in range(2)]
    assert pictures.table["label"].tolist() == [name for name in COLOURS for _ in range(2)]
    assert colours(pictures) == [COLOURS[name] for name in COLOURS for _ in range(2)]
    assert pictures.bad == []


def test_a_flat_folder_and_one_subfolder_have_no_label(classes: Path) -> None:
    assert read(classes / "red").label is None
    (classes / "red").rename(classes.parent / "red")
    os.renames(classes, classes.parent / "all" / "classes")
    (classes.parent / "all" / "classes" / "blue").rename(classes.parent / "blue")
    pictures = read(classes.parent / "all")
    assert pictures.table.columns.tolist() == ["name"]
    assert pictures.table["name"].tolist() == ["classes/green/0.png", "classes/green/1.png"]


def test_below_train_and_val_the_next_level_is_the_class(classes: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("red", "blue"):
            (tmp_path / "both" / split / name).mkdir(parents=True)
            Image.new("RGB", (2, 2), name).save(tmp_path / "both" / split / name / "0.JPG")
    table = read(tmp_path / "both").table
    assert table["label"].tolist() == ["blue", "red", "blue", "red"]
    assert table["split"].tolist() == ["train", "train", "val", "val"]


def test_folders_that_link_in_a_circle_are_walked_once(classes: Path) -> None:
    (classes / "red" / "again").symlink_to(classes, target_is_directory=True)
    assert len(read(classes)) == 6


def test_unicode_names_and_names_that_are_not(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "猫 ö.png")
    os.rename(tmp_path / "猫 ö.png", os.fsencode(tmp_path) + b"/\xff.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "猫 ö.png")
    assert read(tmp_path).table["name"].tolist() == ["猫 ö.png", "?.png"]


def test_a_list_of_files_and_folders(classes: Path) -> None:
    pictures = read([classes / "red" / "1.png", str(classes / "blue"), classes / "red" / "1.png"])
    assert colours(pictures) == [COLOURS[name] for name in ("red", "blue", "blue", "red")]
    assert pictures.table["name"].iloc[3] == f"{classes / 'red' / '1.png'} (2)"
    assert colours(read(classes / "red" / "1.png")) == [COLOURS["red"]]


def test_a_glob(classes: Path) -> None:
    (classes / "red" / "0.txt").write_text("no picture")
    assert len(read(f"{classes}/*/0.*")) == 3
    assert len(read(f"{classes}/**/*.png")) == 6
    assert "no picture matches" in refusal(f"{classes}/*.jpg")


def test_files_that_only_look_like_pictures(classes: Path) -> None:
    (classes / "red" / "2.jpg").write_text("hello")
    assert read(classes, max_bad=0.2).bad == [("red/2.jpg", "not a picture, or corrupt")]


# --- tables


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_table_of_paths_relative_to_it(classes: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"weight": [1.5, 2.5], "file": ["red/0.png", "blue/1.png"], "label": ["r", "b"]})
    path = classes / f"table.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="," if kind == "csv" else "\t", index=False)
    monkeypatch.chdir("/")
    pictures = read(path)
    assert colours(pictures) == [COLOURS["red"], COLOURS["blue"]]
    assert pictures.table.columns.tolist() == ["name", "weight", "label"]
    assert pictures.table["name"].tolist() == ["red/0.png", "blue/1.png"]
    assert pictures.table["weight"].tolist() == [1.5, 2.5]
    assert pictures.label == "label"


def test_a_file_named_in_a_table_but_missing_and_cells_without_one(classes: Path) -> None:
    (classes / "t.csv").write_text("file,n\nred/0.png,1\nred/9.png,2\n,3\n")
    pictures = read(classes / "t.csv", max_bad=0.7)
    assert pictures.bad == [("red/9.png", "no such file"), ("row 2", "missing")]
    assert pictures.table["n"].tolist() == [1]


def test_a_frame_of_bytes_and_of_structs(classes: Path) -> None:
    data = [(classes / name / "0.png").read_bytes() for name in COLOURS]
    assert colours(read(pd.DataFrame({"x": [1, 2, 3], "png": data}))) == list(COLOURS.values())
    holes = read(pd.DataFrame({"png": [data[0], None, b"", data[2][:50]]}), max_bad=0.9)
    assert [reason for _, reason in holes.bad][:2] == ["missing", "zero bytes"]
    assert [name for name, _ in holes.bad] == ["row 1", "row 2", "row 3"]
    structs = [{"bytes": data[0], "path": "b.png"}, {"bytes": None, "path": str(classes / "red" / "0.png")}]
    pictures = read(pd.DataFrame({"image": structs, "kind": ["a", "b"]}), label="kind")
    assert colours(pictures) == [COLOURS["blue"], COLOURS["red"]]
    assert pictures.table["name"].tolist() == ["b.png", str(classes / "red" / "0.png")]
    assert pictures.label == "kind"


def test_a_name_that_is_unique_stays_and_one_that_is_not_moves(images: list[Image.Image]) -> None:
    assert read(pd.DataFrame({"i": images, "name": ["a", "b", "c"]})).table["name"].tolist() == [
        "a",
        "b",
        "c",
    ]
    table = read(pd.DataFrame({"i": images, "name": ["a", "b", "a"]})).table
    assert table["name"].tolist() == ["row 0 a", "row 1 b", "row 2 a"]
    assert table["given_name"].tolist() == ["a", "b", "a"]


def test_the_column_is_guessed_only_where_there_is_one(classes: Path) -> None:
    frame = pd.DataFrame({"small": ["red/0.png"], "large": ["blue/0.png"], "n": [1]})
    frame.to_csv(classes / "t.csv", index=False)
    assert "more than one column with pictures (small, large): name it with --column" in refusal(
        classes / "t.csv"
    )
    assert colours(read(classes / "t.csv", column="large")) == [COLOURS["blue"]]
    assert "did you mean 'large'" in refusal(classes / "t.csv", column="larg")
    assert "did you mean 'small'" in refusal(classes / "t.csv", column="large", label="smal")
    assert "no column with pictures or their paths (a, b)" in refusal(pd.DataFrame({"a": [1], "b": ["x"]}))
    assert "has no rows" in refusal(pd.DataFrame({"a": []}))


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no")
    (tmp_path / "a.csv").write_bytes(b"")
    for name in ("a.parquet", "a.csv"):
        assert f"cannot read {tmp_path / name} as a table" in refusal(tmp_path / name)


# --- arrays


def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 8, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "form",
    [
        lambda a: a,
        lambda a: a.transpose(0, 3, 1, 2),
        lambda a: torch.from_numpy(a).permute(0, 3, 1, 2),
        lambda a: a.astype(np.float64) / 255,
        lambda a: a.astype(np.float32),
        lambda a: a.astype(np.int64),
    ],
)
def test_arrays_of_any_layout_and_type(form: Any) -> None:
    pixels = read(form(batch())).__getitems__([2])["pixels"][0, :, :8]
    np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), batch()[2])


def test_one_scale_for_all_pictures_of_an_array() -> None:
    floats = np.stack([np.full((4, 4), 1.0), np.full((4, 4), 200.0)])
    assert read(floats).__getitems__([0, 1])["pixels"][:, 0, 0, 0].tolist() == [1, 200]
    integers = np.stack([np.full((4, 4), 100), np.full((4, 4), 1000)])
    deep = read(integers)
    assert deep.depth == 16
    assert deep.__getitems__([0, 1])["pixels"][:, 0, 0, 0].tolist() == [100, 1000]


def test_grey_and_many_channels_and_none_that_fit() -> None:
    assert read(np.zeros((5, 8, 10), np.uint8)).channels == 1
    assert read(np.zeros((5, 8, 10, 1))).channels == 1
    assert read(np.zeros((5, 13, 32, 32), np.uint16)).channels == 13
    assert "[8, 10] where [N, H, W], [N, H, W, C] or [N, C, H, W] was expected" in refusal(np.zeros((8, 10)))
    assert "is one picture: give it as array[None]" in refusal(np.zeros((8, 10, 3)))
    assert "pictures are numbers" in refusal(np.full((2, 4, 4), "a"))


def test_nan_is_bad_and_normalised_pictures_are_told() -> None:
    floats = batch() / 255.0
    floats[1, 0, 0, 0] = np.nan
    pictures = read(floats, max_bad=0.2)
    assert pictures.bad == [("picture 1", "NaN or infinite values")]
    np.testing.assert_array_equal(
        pictures.__getitems__([0])["pixels"][0, :, :8].permute(1, 2, 0).numpy(), batch()[0]
    )
    assert "picture 0: values from -2 to 2 where 0 to 255 was expected" in refusal(
        np.linspace(-2, 2, 32).reshape(1, 4, 8).repeat(3, 0)
    )


def test_numpy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", batch())
    assert len(read(tmp_path / "a.npy")) == 5
    np.savez(tmp_path / "a.npz", x=batch(), y=np.arange(5)[:, None])
    pictures = read(tmp_path / "a.npz")
    assert (pictures.label, pictures.table["label"].tolist()) == ("label", [0, 1, 2, 3, 4])
    np.savez(tmp_path / "b.npz", faces=batch(), ids=np.arange(5))
    assert len(read(tmp_path / "b.npz")) == 5
    np.savez(tmp_path / "c.npz", train=batch(), test=batch()[:2])
    assert "has 2 arrays that may be pictures (train [5, 8, 10, 3], test [2, 8, 10, 3])" in refusal(
        tmp_path / "c.npz"
    )
    assert len(read(tmp_path / "c.npz", column="test")) == 2
    assert "did you mean 'train'" in refusal(tmp_path / "c.npz", column="trains")
    np.savez(tmp_path / "d.npz", images=batch(), labels=np.arange(4))
    assert "has 5 pictures but 4 labels" in refusal(tmp_path / "d.npz")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object))
    (tmp_path / "broken.npz").write_bytes(b"no")
    for name in ("pickled.npy", "broken.npz"):
        assert "as plain numpy arrays" in refusal(tmp_path / name)


def test_pillow_images(images: list[Image.Image]) -> None:
    pictures = read(images)
    assert colours(pictures) == list(COLOURS.values())
    assert pictures.table["name"].tolist() == ["picture 0", "picture 1", "picture 2"]
    assert len(read(images[0])) == 1


# --- data sets of other libraries


class Samples(Dataset[Any]):
    """A map-style data set; counts how often each sample is fetched."""

    def __init__(self, samples: list[Any], classes: list[str] | None = None) -> None:
        self.samples, self.classes, self.fetched = samples, classes, [0] * len(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self.fetched[index] += 1
        if isinstance(self.samples[index], Exception):
            raise self.samples[index]
        return self.samples[index]


def test_a_torch_dataset_is_fetched_once(images: list[Image.Image]) -> None:
    large = torch.zeros(3, 300, 200)
    plain = Samples([images[0], np.asarray(images[1]), large])
    pictures = read(plain)
    assert plain.fetched == [1, 1, 1]
    assert pictures.label is None
    assert pictures.side == 16
    assert colours(pictures)[:2] == [COLOURS["blue"], COLOURS["green"]]
    labelled = Samples([(images[0], 1), (images[2], torch.tensor(0))], classes=["cat", "dog"])
    assert read(labelled).table["label"].tolist() == ["dog", "cat"]
    assert read(Samples([(images[0], 1), (images[2], 0)])).table["label"].tolist() == [1, 0]


def test_bad_samples_of_a_torch_dataset(images: list[Image.Image]) -> None:
    samples = Samples([images[0], FileNotFoundError(2, "gone"), None, torch.full((3, 4, 4), torch.nan)])
    assert [reason for _, reason in read(samples, max_bad=0.8).bad] == [
        "no such file",
        "missing",
        "NaN or infinite values",
    ]

    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(images)

    assert "Stream has no length; give a map-style torch Dataset" in refusal(Stream())
    assert "is empty" in refusal(Samples([]))


@pytest.fixture
def hugging_face(images: list[Image.Image]) -> datasets.Dataset:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cold", "warm"]),
            "n": datasets.Value("int32"),
        }
    )
    return datasets.Dataset.from_dict({"image": images, "kind": [0, 0, 1], "n": [7, 8, 9]}, features=features)


def test_a_hugging_face_dataset(hugging_face: datasets.Dataset, images: list[Image.Image]) -> None:
    for source in (hugging_face, hugging_face.with_format("torch")):
        pictures = read(source)
        assert colours(pictures) == list(COLOURS.values())
        assert pictures.label == "kind"
        assert pictures.table["kind"].tolist() == ["cold", "cold", "warm"]
        assert pictures.table["n"].tolist() == [7, 8, 9]
    backwards = read(hugging_face.select([2, 0]))
    assert colours(backwards) == [COLOURS["red"], COLOURS["blue"]]
    assert backwards.table["n"].tolist() == [9, 7]
    assert colours(read(datasets.Dataset.from_dict({"image": images}))) == list(COLOURS.values())
    assert "streaming=False" in refusal(hugging_face.to_iterable_dataset())


def test_splits_and_saved_folders(hugging_face: datasets.Dataset, tmp_path: Path) -> None:
    splits = datasets.DatasetDict({"train": hugging_face, "test": hugging_face.select([1])})
    assert "has the splits 'train', 'test': choose one" in refusal(splits)
    assert len(read(datasets.DatasetDict({"train": hugging_face}))) == 3
    hugging_face.save_to_disk(str(tmp_path / "one"))
    assert len(read(tmp_path / "one")) == 3
    splits.save_to_disk(str(tmp_path / "two"))
    assert "has the splits 'train', 'test'" in refusal(tmp_path / "two")
    assert len(read(f"{tmp_path / 'two'}:test")) == 1
    assert "did you mean 'test'" in refusal(f"{tmp_path / 'two'}:tests")


def test_names_on_the_hub(
    hugging_face: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "cannot load 'a/b' (not a path here) from the Hugging Face Hub: no network in tests" in refusal(
        "a/b"
    )
    asked = []

    def load(name: str, split: str | None) -> datasets.Dataset:
        asked.append((name, split))
        return hugging_face

    monkeypatch.setattr(datasets, "load_dataset", load)
    for source in ("hf:a/b:train[:10]", "hf:cifar10", "a/b:test[1:]", "a/b"):
        assert len(read(source)) == 3
    assert asked == [("a/b", "train[:10]"), ("cifar10", None), ("a/b", "test[1:]"), ("a/b", None)]
    (tmp_path / "a" / "b").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "a" / "b" / "0.png")
    assert len(read("a/b")) == 1
    assert "no such file or folder: a/c" in refusal("a/c")
    assert len(asked) == 4


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert "pip install 'polysense[hf]'" in refusal("hf:a/b")
    assert len(read(np.zeros((2, 4, 4)))) == 2


# --- the package's own, and what is no source


def test_emoji() -> None:
    pictures = read("builtin:emoji")
    assert len(pictures) == 3822
    assert (pictures.label, pictures.identity, pictures.channels, pictures.bad) == ("group", "code", 3, [])
    assert pictures.table["group"].nunique() == 10
    assert pictures.table["name"].iloc[0] == "noto/1f600 grinning face"
    assert pictures.table["name"].is_unique
    assert pictures.table["given_name"].iloc[0] == "grinning face"
    assert "builtin:speech holds no pictures but data for 'audio'; pictures: builtin:emoji" in refusal(
        "builtin:speech"
    )
    assert "did you mean 'emoji'" in refusal("builtin:emoj")


def test_a_path_that_is_not_there_suggests_its_neighbour(classes: Path, tmp_path: Path) -> None:
    assert (
        refusal(tmp_path / "clases")
        == f"no such file or folder: {tmp_path / 'clases'}; did you mean {classes}?"
    )
    assert f"there is no {tmp_path / 'x' / 'y'} either" in refusal(tmp_path / "x" / "y" / "z.png")


def test_what_is_no_source_says_what_is(tmp_path: Path) -> None:
    assert "cannot read pictures from a dict; give a folder, a list of files, a glob" in refusal({})
    (tmp_path / "a.docx").write_bytes(b"x")
    assert "a.docx is no picture and no table of pictures; give a folder" in refusal(tmp_path / "a.docx")
    (tmp_path / "a.docx").rename(tmp_path / "b.txt")
    assert f"no picture in {tmp_path}; looked for files ending in .png, .jpg" in refusal(tmp_path)
    assert "the list of pictures is empty" in refusal([])
    with pytest.raises(PolysenseError, match="size is 0 pixels"):
        read_pictures([1], size=0)
