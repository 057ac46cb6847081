"""Forms in which people write lists and tables of images."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from longtailed.data.imageset import ImageSet
from longtailed.data.sources import available_splits, load_imageset
from longtailed.errors import LongTailedError

ROWS = [("im/ant/0.png", "ant"), ("im/ant/1.png", "ant"), ("im/bee/0.png", "bee")]
NUMBERED = [(path, {"ant": 0, "bee": 1}[name]) for path, name in ROWS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, _ in ROWS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / path)
    return tmp_path


def write(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def table(rows: object = ROWS, header: str = "path,label", separator: str = ",") -> str:
    lines = [separator.join(map(str, row)) for row in rows]  # type: ignore[attr-defined]
    return "\n".join([*filter(None, [header]), *lines]) + "\n"


def check(source: Path, split: str = "train", **options: object) -> ImageSet:
    """Return the set, of which all files must exist."""
    imageset = load_imageset(source, split, **options)  # type: ignore[arg-type]
    for position in range(len(imageset)):
        imageset.decode(position)
    return imageset


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (table(separator=";", header="path;label"), "utf-8"),
        (table(separator=";", header=""), "utf-8"),
        (table(separator="\t", header="path\tlabel"), "utf-8"),
        (table(separator="\t", header="path\tlabel"), "utf-16"),
        (table(), "utf-16"),
        (table(), "utf-8-sig"),
        (table().replace("\n", "\r"), "utf-8"),
        (table([(name, path) for path, name in ROWS], header=""), "utf-8"),
        (table([(i, *row) for i, row in enumerate(ROWS)], header=",Image Path,Category"), "utf-8"),
        (table(header="image_id,dx"), "utf-8"),
        (table([(path[:-4], name) for path, name in ROWS], header="image_id,label"), "utf-8"),
        (table(ROWS + ROWS), "utf-8"),
        (table([(p, int(n == "ant"), int(n == "bee")) for p, n in ROWS], "id,ant,bee"), "utf-8"),
        (table([(path.replace("/", "\\"), name) for path, name in ROWS]), "utf-8"),
        (table([("D:\\own\\" + path.replace("/", "\\"), name) for path, name in ROWS]), "utf-8"),
        (table([(f"/home/someone/{path}", name) for path, name in ROWS]), "utf-8"),
    ],
)  # fmt: skip
def test_tables_with_one_meaning_are_read(folder, text, encoding):
    imageset = check(write(folder / "t.csv", text, encoding))
    assert imageset.class_names == ("ant", "bee")
    assert imageset.class_counts == [2, 1]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (table(NUMBERED, "", ","), "0 1"),
        (table(NUMBERED, "path label", " "), "0 1"),
        (table(NUMBERED, "", "\t"), "0 1"),
        (table(NUMBERED, "", "\u00a0"), "0 1"),
        (table(NUMBERED, "", " ").replace("\n", "\x0b\n"), "0 1"),
        (table(NUMBERED, "", " ").replace("\n", "\r"), "0 1"),
        (table([(path, f"{label}.0") for path, label in NUMBERED], "", " "), "0 1"),
        (table([(f'"{path}"', label) for path, label in NUMBERED], "", " "), "0 1"),
        (table([(f"/{path}", label) for path, label in NUMBERED], "", " "), "0 1"),
        (table([(f"./{path}", label) for path, label in NUMBERED], "", " "), "0 1"),
        (table([(path, label + 1) for path, label in NUMBERED], "", " "), "1 2"),
        (table(ROWS, "", " "), "ant bee"),
        (table([(path, f"a {name}") for path, name in ROWS], "", " "), "a ant,a bee"),
    ],
)
def test_lists_with_one_meaning_are_read(folder, text, names):
    imageset = check(write(folder / "t.txt", text))
    assert imageset.class_names == tuple(names.split("," if "," in names else " "))
    assert imageset.class_counts == [2, 1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "path,label\na.png,ant, small\n", "line 2: it has 3 cells, and the first row 2"),
        ("t.csv", "path,label\na.png,ant\nb.png,NaN\n", "line 3: the label 'NaN' .*missing value"),
        ("t.csv", "path,label\na.png,ant\na.png,bee\n", "line 3: 'a.png' has .*'bee', but 'ant' "),
        ("t.csv", b"path,label\na.png,caf\xe9\n", "line 2: the label .*is not UTF-8"),
        ("t.csv", b"path,label\na.png,ant\nb.png,ant\0\n", "line 3: .*NUL"),
        ("t.csv", b"path,label\na\0.png,ant\n", "line 2: the path .*NUL"),
        ("t.csv", "path,label".encode("utf-16-le"), "line 1: it holds NUL bytes"),
        ("t.csv", "path,label".encode("utf-16") + b"a", "damaged UTF-16"),
        ("t.csv", "a.png,ant,2024\n", "line 1: it is neither"),
        ("t.csv", "image,ant,bee\na.png,1,0\nb.png,1,1\n", "line 3: the columns 'ant', 'bee' are"),
        ("t.csv", "image,ant,bee\na.png,0.2,0.8\n", "no column with a usual name.*'ant', 'bee'"),
        (
            "t.csv",
            "image,label,Label\na.png,0,0\n",
            r"more than one label column \('label', 'Label'",
        ),
        ("t.csv", "path,label\n,,\n" + "x" * 5000 + ".png,\n", "line 3: no label in"),
        ("t.csv", ",,\n", "lists no images"),
        ("t.txt", "a.png 0 0\n", "line 1: the label '0 0' is not a whole number"),
        ("t.txt", "a.png 0;\n", "line 1: the label '0;' is not a whole number"),
        ("t.txt", "0 a.png\n", "line 1: the label stands before the path"),
        ("t.txt", "a.png\nb.png\n", "names images without labels"),
    ],
)
def test_tables_without_a_clear_meaning_are_refused(tmp_path, name, text, message):
    with pytest.raises(LongTailedError, match=message):
        load_imageset(write(tmp_path / name, text))


def test_identifiers_stay_names(folder):
    for labels in (("007", "010"), ("2435099", "7412043"), ("30", "stop")):
        rows = [(path, labels[name == "bee"]) for path, name in ROWS]
        imageset = load_imageset(write(folder / "t.csv", table(rows)))
        assert imageset.class_names == labels
        named = load_imageset(folder / "t.csv", class_names=labels[::-1])
        assert named.labels.tolist() == [1, 1, 0]
    rows = [(f"{i}.png", f"{i:05d}") for i in range(12)]
    names = [f"sign {i}" for i in range(12)]
    numbered = load_imageset(write(folder / "t.csv", table(rows)), class_names=names)
    assert numbered.labels.tolist() == list(range(12))


def test_a_split_column_is_honoured(folder):
    rows = [(*row, split) for row, split in zip(ROWS, ("Train", "TEST", "train"), strict=True)]
    source = write(folder / "t.csv", table(rows, "path,label,Set"))
    assert available_splits(source) == ("train", "test")
    train, test = check(source), check(source, "test")
    assert train.images.paths == ["im/ant/0.png", "im/bee/0.png"]
    assert test.images.paths == ["im/ant/1.png"]
    assert test.class_names == train.class_names == ("ant", "bee")
    assert any("splits are those of column 'Set'" in note for note in train.notes)
    with pytest.raises(LongTailedError, match="has the split 'test': leave out test_list"):
        load_imageset(source, test_list=source)
    for head, other, message in (("set", "extra", "line 3: .*'extra'"), ("split", "5", "line 2")):
        mixed = [(*rows[0][:2], other if head == "split" else "train"), (*rows[1][:2], other)]
        with pytest.raises(LongTailedError, match=f"{message}.* none of train, val and test"):
            load_imageset(write(folder / "t.csv", table(mixed, f"path,label,{head}")))
    chosen = load_imageset(
        write(folder / "t.csv", table(rows, "path,label,set")), label_column="set"
    )
    assert chosen.class_names == ("TEST", "Train", "train")
    hospital = [(*row, "vienna") for row in ROWS]
    whole = load_imageset(write(folder / "t.csv", table(hospital, "path,label,dataset")))
    assert len(whole) == 3
    assert any("'dataset' names no splits" in note for note in whole.notes)


def test_names_and_numbers_need_a_code_book(folder):
    train = write(folder / "train.csv", table())
    for test in (
        write(folder / "test.csv", table([(ROWS[0][0], 1), (ROWS[2][0], 0)])),
        write(folder / "test.txt", "im/ant/0.png 1\nim/bee/0.png 0\n"),
    ):
        with pytest.raises(LongTailedError, match="one has numbers and the other names"):
            load_imageset(train, "test", test_list=test)
        mapped = load_imageset(train, "test", test_list=test, class_names="bee,ant")
        assert mapped.labels.tolist() == [1, 0]
        assert load_imageset(train, class_names="bee,ant").labels.tolist() == [1, 1, 0]


def test_an_unlabelled_test_table_is_left_out(folder):
    train = write(folder / "train.csv", table())
    write(folder / "test.csv", "filename\nim/ant/0.png\n")
    assert available_splits(train) == ("train",)
    assert load_imageset(train).notes == ("train.csv: 'test.csv' has no labels and is not used",)
    with pytest.raises(LongTailedError, match="names images without labels"):
        load_imageset(train, "test", test_list=folder / "test.csv")
    write(folder / "test.csv", "filename,genus\nim/ant/0.png,ant\n")
    assert available_splits(train) == ("train",)
    write(folder / "train.csv", table(header="path,genus"))
    assert available_splits(train, label_column="genus") == ("train", "test")
    assert check(train, "test", label_column="genus").labels.tolist() == [0]


def test_columns_are_chosen_by_name(folder):
    source = write(folder / "t.csv", table([(p, n, "x") for p, n in ROWS], "photo,genus,label"))
    with pytest.raises(LongTailedError, match=r"neither .* header .*image_column and label_column"):
        load_imageset(source)
    chosen = check(source, image_column="photo", label_column="genus")
    assert chosen.class_counts == [2, 1]
    assert chosen.notes == ("t.csv: images are in column 'photo', labels in 'genus'",)
    with pytest.raises(LongTailedError, match="'phoot'; did you mean 'photo'"):
        load_imageset(source, image_column="phoot")


def test_names_are_completed_where_one_file_fits(tmp_path):
    for name in ("part_1/a.jpg", "part_2/b.png", "part_2/c.png", "part_1/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / name)
    source = write(tmp_path / "t.csv", "image_id,dx\na,mel\nb,nv\n")
    imageset = check(source)
    assert imageset.images.paths == ["part_1/a.jpg", "part_2/b.png"]
    assert imageset.notes == ("t.csv: 2 names are completed ('a' is 'part_1/a.jpg')",)
    write(source, "image_id,dx\na,mel\nc,nv\n")
    with pytest.raises(LongTailedError, match=r"'c' fits .*part_1/c\.jpg, part_2/c\.png"):
        load_imageset(source)
    write(source, "image_id,dx\na,mel\nz,nv\n")
    with pytest.raises(LongTailedError, match="z' cannot be decoded: there is no such file"):
        check(source)


def test_repeats_and_names_that_look_alike_are_said(folder):
    rows = [(path, "Bee" if path == "im/bee/0.png" else name) for path, name in ROWS]
    source = write(folder / "t.csv", table([*rows, ("im/bee/1.png", "bee"), rows[0]]))
    assert load_imageset(source).notes == (
        "t.csv: the classes 'Bee', 'bee' are kept apart, though they look alike",
        "t.csv: 1 lines repeat an image and are left out",
    )


def test_lines_with_a_hash_before_an_image_are_said(tmp_path):
    note = "1 lines with # before an image are left out (line 2)"
    table = write(tmp_path / "t.csv", "path,label\n#a.png,ant\n# note\nb.png,bee\n")
    lines = write(tmp_path / "t.txt", "b.png 0\n# a.png 1\n# note 2\n")
    for source in (table, lines):
        imageset = load_imageset(source)
        assert imageset.images.paths == ["b.png"]
        assert imageset.notes == (f"{source.name}: {note}",)


def test_paths_may_have_other_bytes_than_utf_8(tmp_path):
    path = b"se\xf1al.png"
    Image.new("RGB", (3, 2)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / path.decode(errors="surrogateescape"))
    for name, text in (("t.csv", b"path,label\n" + path + b",ant\n"), ("t.txt", path + b" ant\n")):
        assert check(write(tmp_path / name, text)).class_names == ("ant",)
