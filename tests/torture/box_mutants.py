"""Damage to containers of boxes, chunks, segments or elements, as mp4, PNG, JPEG, WebP, TIFF, Matroska are."""

import random

from tests.torture.mutants import NUMBERS, damaged_bytes

BOXES = [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"elst",
         b"edts", b"mvhd", b"tkhd", b"mdhd", b"hdlr", b"avcC", b"colr", b"meta", b"ilst", b"udta", b"mdat", b"ftyp",
         b"IHDR", b"PLTE", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"iCCP", b"tRNS", b"VP8X", b"ANIM", b"ANMF",
         b"ALPH", b"VP8L", b"EXIF", b"ICCP", b"Exif", b"\xff\xda", b"\xff\xc0", b"\xff\xe1", b"iloc", b"ipma", b"iinf",
         b"\x1a\x45\xdf\xa3", b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75", b"\xa3", b"\xe0", b"\x47",
         b"GIF8", b",\0\0\0\0", b"!\xf9", b"II*\0", b"MM\0*"]  # fmt: skip


def damaged_structure(data: bytes, rng: random.Random) -> bytes:
    """Numbers right before and after a box's, chunk's, segment's or element's name, or a whole stretch from it on."""
    names = [name for name in BOXES if name in data]
    if not names or rng.random() < 0.25:
        return damaged_bytes(data, rng)
    content = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(names)
        places = [place for place in range(len(content)) if content.startswith(name, place)][:50]
        if not places:
            continue
        place = rng.choice(places)
        at = max(place + rng.choice([-4, *range(len(name), len(name) + 40)]), 0)
        size = rng.choice([1, 2, 4, 4, 8])
        match rng.randrange(5):
            case 0 | 1:
                number = rng.choice([*NUMBERS, rng.getrandbits(64)]) % 2 ** (8 * size)
                content[at : at + size] = number.to_bytes(size, "big")
            case 2:
                content[place : place + len(name)] = rng.choice(names)
            case 3:
                del content[at : at + rng.choice([1, 4, 16, 256])]
            case _:
                content[at:at] = content[place - 4 : place + rng.choice([8, 32, 400])]
    return bytes(content)
