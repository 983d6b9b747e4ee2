"""What is read of EXIF, XMP and IPTC, of sound files and of hostile ones, through the guarded decoding processes."""

import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import random_picture
from PIL import Image, TiffImagePlugin

from diffsim.retrieval.pictures.decode_pool import DecodePool
from diffsim.retrieval.pictures.images import decode
from diffsim.retrieval.pictures.metadata import (
    LONGEST_CAPTION,
    LONGEST_NAME,
    MOST_KEYWORDS,
    NOTHING_SAID,
    Metadata,
)

R = TiffImagePlugin.IFDRational


def exif(
    make: str = "", model: str = "", lens: str = "", gps: dict[int, object] | None = None, **more: object
) -> bytes:
    block = Image.Exif()
    for tag, text in ((0x010F, make), (0x0110, model), (0x010E, more.get("description"))):
        if text:
            block[tag] = text
    if lens:
        block.get_ifd(0x8769)[0xA434] = lens
    if gps:
        block.get_ifd(0x8825).update(gps)
    if "rating" in more:
        block[0x4746] = more["rating"]
    return block.tobytes()


def place(north: tuple[object, ...], east: tuple[object, ...], sides: str = "NE") -> dict[int, object]:
    return {1: sides[0], 2: north, 3: sides[1], 4: east}


def xmp(body: str, attributes: str = "") -> bytes:
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
xmlns:aux="http://ns.adobe.com/exif/1.0/aux/" {attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>""".encode()


def subject(*words: str) -> str:
    return f"<dc:subject><rdf:Bag>{''.join(f'<rdf:li>{word}</rdf:li>' for word in words)}</rdf:Bag></dc:subject>"


def iptc(*fields: tuple[int, bytes]) -> bytes:
    """An APP13 segment as Photoshop writes it."""
    block = b"".join(b"\x1c\x02" + bytes([kind]) + struct.pack(">H", len(text)) + text for kind, text in fields)
    padded = block + b"\0" * (len(block) % 2)
    segment = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(block)) + padded
    return b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment


def picture(form: str = "JPEG", **more: object) -> bytes:
    file = io.BytesIO()
    random_picture(1).save(file, form, **more)
    return file.getvalue()


def with_iptc(*fields: tuple[int, bytes]) -> bytes:
    data = picture()
    return data[:2] + iptc(*fields) + data[2:]


def read(data: bytes) -> Metadata:
    return decode(data, 16).metadata


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1, 16) as pool:
        yield pool


def test_everything_that_a_photograph_says():
    vienna = place((R(48), R(12), R(30)), (R(16), R(22), R(12)))
    body = (
        subject("Vienna", "night", "vienna")
        + '<dc:description><rdf:Alt><rdf:li xml:lang="de">Wien</rdf:li>'
        + '<rdf:li xml:lang="x-default">Vienna by\nnight</rdf:li></rdf:Alt></dc:description>'
    )
    said = read(
        picture(
            exif=exif("Canon", "Canon EOS R5", "RF24-70mm F2.8 L IS USM", vienna, description="DCIM"),
            xmp=xmp(body, 'xmp:Rating="4"'),
        )
    )
    assert said == Metadata(
        "Canon EOS R5", "RF24-70mm F2.8 L IS USM", 4, 48.208333, 16.37, ("Vienna", "night"), "Vienna by night"
    )


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_other_formats(form):
    kinds = {"exif": exif("FUJIFILM", "X-T5"), "xmp": xmp(subject("one"))}
    if form == "PNG":  # Pillow itself writes XMP into PNG in this way
        from PIL.PngImagePlugin import PngInfo

        kinds = {"exif": kinds["exif"], "pnginfo": PngInfo()}
        kinds["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp(subject("one")).decode())
    if form == "TIFF":
        kinds = {"tiffinfo": {0x010F: "FUJIFILM", 0x0110: "X-T5", 700: xmp(subject("one"))}}
    said = read(picture(form, **kinds))
    assert (said.camera, said.keywords) == ("FUJIFILM X-T5", ("one",))


def test_iptc_is_read_whatever_its_letters():
    said = read(with_iptc((25, "Zürich".encode()), (25, "Genève".encode("latin-1")), (25, b"\0"), (120, b"a\r\nlake")))
    assert said.keywords == ("Zürich", "Genève") and said.caption == "a lake"
    assert read(with_iptc((25, b"alone"))).keywords == ("alone",)


@pytest.mark.parametrize(
    ("make", "model", "name"),
    [
        ("NIKON CORPORATION", "NIKON D850", "NIKON D850"),
        ("SONY", "ILCE-7M4", "SONY ILCE-7M4"),
        ("Apple", "", "Apple"),
        ("", "Pixel 8\0\0", "Pixel 8"),
        ("x" * 5000, "y", "x" * LONGEST_NAME),
        ("\u202eevil\x1b[31m", "\t\n", "evil [31m"),
        ("Zürich", "1", "Zürich 1"),
    ],
)
def test_cameras(make, model, name):
    placeholder = "@" * len(make.encode())  # Pillow writes ASCII alone
    block = exif(placeholder, model).replace(placeholder.encode() or b"@", make.encode())
    assert read(picture(exif=block)).camera == name


@pytest.mark.parametrize(
    ("gps", "found"),
    [
        (place((R(33), R(51), R(0)), (R(151), R(12), R(0)), "SE"), (-33.85, 151.2)),
        (place((R(40), R(0), R(0)), (R(74), R(0), R(0)), "NW"), (40.0, -74.0)),
        (place((R(90), R(0), R(0)), (R(180), R(0), R(0))), (90.0, 180.0)),
        (place((R(0), R(0), R(0)), (R(0), R(0), R(0))), None),
        (place((R(1, 10**8), R(0), R(0)), (R(0), R(0), R(0))), None),
        (place((R(0, 0), R(0), R(0)), (R(1), R(0), R(0))), None),
        (place((R(91), R(0), R(0)), (R(1), R(0), R(0))), None),
        (place((R(10), R(70), R(0)), (R(1), R(0), R(0))), None),
        (place((R(10), R(0), R(0)), (R(1), R(0), R(0)), "XE"), None),
        (place((R(10), R(0)), (R(1), R(0), R(0))), None),
        ({2: (R(10), R(0), R(0))}, None),
    ],
)
def test_places(gps, found):
    said = read(picture(exif=exif(gps=gps)))
    assert (said.latitude, said.longitude) == (found or (None, None))


def test_a_rational_with_a_negative_denominator_is_no_place():
    block = exif(gps=place((R(48), R(12), R(0)), (R(16), R(22), R(0))))
    at = block.index(struct.pack("<II", 48, 1)) if block[6:8] == b"II" else block.index(struct.pack(">II", 48, 1))
    for number, below in ((48, 2**32 - 1), (2**32 - 48, 1), (48, 0), (0, 0)):
        order = "<" if block[6:8] == b"II" else ">"
        hostile = block[:at] + struct.pack(f"{order}II", number, below) + block[at + 8 :]
        said = read(picture(exif=hostile))
        assert said.latitude is None or (math.isfinite(said.latitude) and -90 <= said.latitude <= 90)


@pytest.mark.parametrize(
    ("text", "stars"),
    [
        ("5", 5),
        ("3.0", 3),
        ("-1", -1),
        ("0", None),
        ("99", None),
        ("NaN", None),
        ("inf", None),
        ("1e400", None),
        ("", None),
    ],
)
def test_ratings(text, stars):
    assert read(picture(xmp=xmp("", f'xmp:Rating="{text}"'))).rating == stars
    assert read(picture(xmp=xmp(f"<xmp:Rating>{text}</xmp:Rating>"))).rating == stars


def test_the_rating_of_exif_stands_in():
    assert read(picture(exif=exif(rating=3))).rating == 3
    assert read(picture(exif=exif(rating=3), xmp=xmp("", 'xmp:Rating="5"'))).rating == 5


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE = {
    "entity bomb": b'<!DOCTYPE x [<!ENTITY l0 "lol">' + LAUGHS.encode() + b"]><x>&l9;</x>",
    "external entity": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + xmp(subject("&e;"))[50:],
    "document type": b"<!DOCTYPE x>" + xmp(subject("word")),
    "invalid UTF-8": xmp(subject("word")).replace(b"word", b"w\xff\xferd"),
    "cut off": xmp(subject("word"))[:-60],
    "nothing": b"",
    "zeros": b"\0" * 50_000,
    "not XML": b"\x89PNG" * 100,
    "deep": b"<a>" * 400_000 + b"</a>" * 400_000,
    "unknown prefix": b"<x:y/>",
}


@pytest.mark.parametrize("packet", HOSTILE.values(), ids=HOSTILE)
def test_hostile_xmp_costs_only_what_it_says(pool, tmp_path, packet):
    path = tmp_path / "hostile.webp"
    path.write_bytes(picture("WEBP", xmp=packet, exif=exif("Canon", "EOS")))
    said = pool.decode(path).metadata
    assert said == Metadata(camera="Canon EOS")


def test_huge_packets_and_thousands_of_keywords(pool, tmp_path):
    path = tmp_path / "many.webp"
    words = [f"{n:05d}{'😀' * 200}" for n in range(10_000)]
    for number, (packet, keywords) in enumerate(
        [
            (xmp(subject(*(word[:5] for word in words))), [word[:5] for word in words]),
            (xmp(subject(*words[:1000])), [word[:LONGEST_NAME] for word in words]),
            (xmp(subject(*words)), []),  # 8 MB
        ]
    ):
        path.write_bytes(picture("WEBP", xmp=packet))
        said = pool.decode(path).metadata
        assert list(said.keywords) == keywords[:MOST_KEYWORDS], number
    text = "€" * 100_000
    path.write_bytes(picture("WEBP", xmp=xmp(f"<dc:description>{text}</dc:description>")))
    assert pool.decode(path).metadata.caption == text[:LONGEST_CAPTION]


def test_broken_exif_and_iptc_say_nothing(pool, tmp_path):
    path = tmp_path / "broken.jpg"
    for data in (
        picture(exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        picture(exif=exif("Canon", "EOS")[:20]),
        with_iptc((25, b"x" * 200)).replace(b"\x1c\x02\x19\x00\xc8", b"\x1c\x02\x19\xff\xff"),
        picture()[:2] + b"\xff\xed\x00\x20Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff" + picture()[2:],
    ):
        path.write_bytes(data)
        assert all(len(word) <= LONGEST_NAME for word in pool.decode(path).metadata.keywords)
    assert read(picture()) == NOTHING_SAID


@pytest.mark.parametrize(
    "message",
    [
        {"camera": "a\nb"},
        {"camera": "a" * (LONGEST_NAME + 1)},
        {"camera": 5},
        {"keywords": ["a"] * (MOST_KEYWORDS + 1)},
        {"keywords": "text", "lens": None},
        {"rating": 6},
        {"latitude": math.nan, "longitude": 1.0},
        {"latitude": 1.0},
        {"latitude": "1", "longitude": "1"},
        {"secret": 1},
    ],
)
def test_what_a_decoder_sends_is_checked(message):
    with pytest.raises((ValueError, TypeError, LookupError)):
        Metadata.from_message(NOTHING_SAID.as_message() | message)
    assert Metadata.from_message(NOTHING_SAID.as_message()) == NOTHING_SAID


def test_no_serial_number_or_name_of_a_person_is_read(tmp_path: Path):
    block = Image.Exif()
    block[0x013B] = "Ada Artist"
    block.get_ifd(0x8769).update({0xA430: "Olga Owner", 0xA431: "SN12345", 0xA435: "SN67890"})
    told = str(read(picture(exif=block.tobytes())).as_message())
    assert not any(name in told for name in ("Ada", "Olga", "SN1", "SN6"))
