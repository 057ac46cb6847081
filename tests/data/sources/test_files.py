from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from longtailed.data.decoding import decode_rgb, is_image_file
from longtailed.data.imageset import EncodedImages, ImageSet
from longtailed.data.sources.files import map_threads, scan_images
from longtailed.data.stores import EncodedColumn, ImageFiles
from longtailed.errors import LongTailedError


def picture(height: int = 6, width: int = 9, seed: int = 0) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def decode(data: bytes) -> torch.Tensor:
    return decode_rgb(np.frombuffer(bytearray(data), dtype=np.uint8))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_decode_to_the_pixels(form):
    assert torch.equal(decode(encode(picture(), form)), as_tensor(picture()))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA"])
def test_every_png_mode_becomes_rgb(mode):
    image = picture().convert(mode)
    assert torch.equal(decode(encode(image, "PNG")), as_tensor(image.convert("RGB")))


@pytest.mark.parametrize(
    ("form", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("WEBP", "RGB")]
)
def test_lossy_formats_decode_as_pil_does(form, mode):
    data = encode(picture(16, 24).convert(mode), form)
    with Image.open(BytesIO(data)) as image:
        expected = as_tensor(image)
    found = decode(data)
    assert found.dtype == torch.uint8
    assert found.shape == (3, 16, 24)
    assert (found.int() - expected.int()).abs().max() <= 2


def test_sixteen_bits_keep_the_upper_eight():
    values = np.array([[0, 255, 256], [4096, 65279, 65535]], dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        found = decode(encode(Image.fromarray(values), form))
        assert found.shape == (3, 2, 3)
        assert torch.equal(found[1], torch.from_numpy((values >> 8).astype(np.uint8)))


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_first_frame_of_an_animation_is_taken(form):
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    found = decode(encode(first, form, save_all=True, append_images=[second]))
    assert found.shape == (3, 8, 8)
    assert found[0].min() > 200
    assert found[2].max() < 50


def test_palette_transparency_changes_nothing():
    palette = picture().convert("P")
    tiff_like = encode(palette, "PNG", transparency=bytes(range(256)))
    assert torch.equal(decode(tiff_like), as_tensor(palette))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_as_exif_says_unless_told_otherwise(form, tmp_path):
    upright = Image.new("RGB", (24, 16), "black")
    upright.paste("white", (0, 0, 24, 4))  # a white sky
    exif = Image.Exif()
    exif[0x112] = 6
    stored = encode(upright.transpose(Image.Transpose.ROTATE_90), form, exif=exif)
    (tmp_path / "phone").write_bytes(stored)
    store = ImageFiles(tmp_path, ["phone"])
    assert store.size(0) == store.size(0, full=True) == (16, 24)
    assert store.decode(0)[:, :4].float().mean() > 240
    store.exif = "ignore"
    assert store.size(0) == store.size(0, full=True) == (24, 16)
    assert store.decode(0)[:, :4].float().mean() < 100


def test_damaged_exif_data_leave_an_image_as_it_is():
    for form in ("JPEG", "WEBP"):
        data = encode(picture(16, 24), form, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
        assert decode(data).shape == (3, 16, 24)


def test_content_decides_where_the_ending_does_not(tmp_path):
    forms = {"a.jfif": "JPEG", "b.jpe": "JPEG", "c.pgm": "PPM", "d": "PNG", "e.image": "WEBP"}
    for name, form in forms.items():
        (tmp_path / name).write_bytes(encode(picture(), form))
        assert is_image_file(tmp_path / name), name
    for name, content in {"notes.txt": b"BM is no bitmap", "x": b"", "y": b"P6 what?"}.items():
        (tmp_path / name).write_bytes(content)
        assert not is_image_file(tmp_path / name), name
    (tmp_path / "page.jpg").write_text("<html>")  # counts, so that reading it names it
    assert is_image_file(tmp_path / "page.jpg")
    assert not is_image_file(tmp_path / "gone")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image in a known format"),
        (encode(picture(40, 40), "JPEG")[:-200], "truncated"),
        (encode(picture(40, 40), "PNG")[:2000], "truncated"),
        (encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "8-bit"),
    ],
)
def test_bad_bytes_give_a_reason(data, reason):
    with pytest.raises(ValueError, match=reason):
        decode(data)


def test_pil_decodes_without_the_torchvision_operator(monkeypatch):
    def missing(*_: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(torch.ops.image, "decode_image", missing)
    palette = picture().convert("P")
    data = encode(palette, "PNG", transparency=bytes(range(256)))
    assert torch.equal(decode(data), as_tensor(palette))
    values = np.array([[0, 256, 65535]], dtype=np.uint16)
    assert decode(encode(Image.fromarray(values), "PNG"))[0].tolist() == [[0, 1, 255]]


def make_files(folder: Path) -> ImageSet:
    """Six images of three classes, of which the files 1, 2 and 4 are bad."""
    names = [f"{i}.png" for i in range(6)]
    for i, name in enumerate(names):
        picture(seed=i).save(folder / name)
    (folder / "1.png").write_bytes(b"")
    (folder / "2.png").unlink()
    (folder / "4.png").write_bytes(b"<html>no image</html>")
    labels = np.array([0, 0, 1, 1, 2, 2])
    return ImageSet(ImageFiles(folder, names), labels, ("a", "b", "c"), name="six")


def test_image_files_decode_and_name_the_bad_file(tmp_path):
    imageset = make_files(tmp_path)
    assert isinstance(imageset.images, EncodedImages)
    assert torch.equal(imageset.decode(3), as_tensor(picture(seed=3)))
    for row, reason in ((1, "empty"), (2, "no such file"), (4, "known format")):
        with pytest.raises(LongTailedError, match=rf"{row}\.png.*{reason}"):
            imageset.decode(row)
    again = pickle.loads(pickle.dumps(imageset.images))
    assert torch.equal(again.decode(5), as_tensor(picture(seed=5)))


def test_scan_names_the_bad_files_or_leaves_them_out(tmp_path):
    imageset = make_files(tmp_path)
    with pytest.raises(LongTailedError, match=r"six: 3 of 6 .*1\.png' \(it is empty\).*no such"):
        scan_images(imageset)
    kept = scan_images(imageset, "skip")
    assert kept.indices.tolist() == [0, 3, 5]
    assert kept.labels.tolist() == [0, 1, 2]
    assert kept.skipped == tuple(str(tmp_path / f"{i}.png") for i in (1, 2, 4))
    assert scan_images(kept) is kept
    with pytest.raises(LongTailedError, match="on_bad_image must be"):
        scan_images(imageset, "ignore")  # type: ignore[arg-type]


def test_only_a_full_scan_finds_truncated_files(tmp_path):
    (tmp_path / "0.jpg").write_bytes(encode(picture(40, 40), "JPEG"))
    (tmp_path / "1.jpg").write_bytes(encode(picture(40, 40), "JPEG")[:-200])
    imageset = ImageSet(ImageFiles(tmp_path, ["0.jpg", "1.jpg"]), np.array([0, 0]), ("a",))
    assert scan_images(imageset) is imageset
    with pytest.raises(LongTailedError, match=r"1\.jpg.*truncated"):
        scan_images(imageset, full=True)
    assert scan_images(imageset, "skip", full=True).indices.tolist() == [0]


def test_a_class_of_which_all_images_are_bad_is_named(tmp_path):
    imageset = make_files(tmp_path).subset([0, 2, 4, 5])
    with pytest.raises(LongTailedError, match=r"2 of 4 .* read, among them all of 'b': .*known"):
        scan_images(imageset)


def test_skipping_every_image_is_an_error(tmp_path):
    imageset = make_files(tmp_path)
    assert scan_images(imageset.subset([0, 2]), "skip").class_counts == [1, 0, 0]
    with pytest.raises(LongTailedError, match="none of the 2 images can be read"):
        scan_images(imageset.subset([1, 2]), "skip")


def test_scan_passes_decoded_sets():
    decoded = ImageSet(torch.zeros(2, 3, 1, 1, dtype=torch.uint8), np.array([0, 0]), ("a",))
    assert scan_images(decoded) is decoded


def test_encoded_column_finds_rows_over_files_and_chunks():
    data = [encode(picture(seed=i), "PNG") for i in range(5)]
    column = EncodedColumn(
        {
            "a.parquet": pa.chunked_array([data[:2], data[2:3]], type=pa.binary()),
            "b.parquet": pa.chunked_array([[data[3], None, data[4]]], type=pa.binary()),
        }
    )
    assert len(column) == 6
    for row, seed in ((0, 0), (2, 2), (3, 3), (5, 4)):
        assert torch.equal(column.decode(row), as_tensor(picture(seed=seed)))
    assert column.size(2) == (6, 9)
    assert column.describe(5) == "row 2 of b.parquet"
    with pytest.raises(LongTailedError, match=r"row 1 of b\.parquet.*null"):
        column.decode(4)
    with pytest.raises(ValueError, match="null"):
        column.size(4)
    assert column.size(5, full=True) == (6, 9)


def test_map_threads_keeps_the_order():
    assert map_threads(lambda x: x * x, range(50), threads=3) == [x * x for x in range(50)]
