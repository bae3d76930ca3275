"""Face regions: frames, matching, reading and merging, without a gallery."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from face2vec.exchange.regions import (
    EMPTY,
    MAX_REGIONS,
    Region,
    Regions,
    frames,
    matched,
    merge,
    regions_of,
    stored,
    upright,
)
from face2vec.exchange.xmp_tree import PacketError, is_xml_text, utf8_of

MWG = "http://www.metadataworkinggroup.com/schemas/regions/"
HEAD = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:mwg-rs="{MWG}"
 xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"
 xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"
 xmlns:MP="http://ns.microsoft.com/photo/1.2/"
 xmlns:MPRI="http://ns.microsoft.com/photo/1.2/t/RegionInfo#"
 xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#">"""
TAIL = "</rdf:RDF></x:xmpmeta>"
DESCRIPTION = """<rdf:Description rdf:about="uuid:1" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmp:Rating="4">{}</rdf:Description>"""

# As these programs write them; the boxes of each are those of ADA and BOB.
ADA, BOB = (0.1, 0.2, 0.3, 0.6), (0.5, 0.2, 0.7, 0.6)
DIGIKAM = """<mwg-rs:Regions rdf:parseType="Resource">
<mwg-rs:AppliedToDimensions stDim:w="400" stDim:h="300" stDim:unit="pixel"/>
<mwg-rs:RegionList><rdf:Bag>
<rdf:li><rdf:Description mwg-rs:Name="Ada" mwg-rs:Type="Face"><mwg-rs:Area stArea:x="0.2"
 stArea:y="0.4" stArea:w="0.2" stArea:h="0.4" stArea:unit="normalized"/></rdf:Description></rdf:li>
<rdf:li><rdf:Description mwg-rs:Name="Rex" mwg-rs:Type="Pet"><mwg-rs:Area stArea:x="0.8"
 stArea:y="0.8" stArea:w="0.2" stArea:h="0.2" stArea:unit="normalized"/></rdf:Description></rdf:li>
<rdf:li><rdf:Description mwg-rs:Type="Face"><mwg-rs:Area stArea:x="0.6"
 stArea:y="0.4" stArea:w="0.2" stArea:h="0.4" stArea:unit="normalized"/></rdf:Description></rdf:li>
</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"""
EXIFTOOL = """<mwg-rs:Regions rdf:parseType='Resource'>
 <mwg-rs:RegionList><rdf:Bag>
  <rdf:li rdf:parseType='Resource'>
   <mwg-rs:Area rdf:parseType='Resource'><stArea:x>80</stArea:x><stArea:y>120</stArea:y>
    <stArea:w>80</stArea:w><stArea:h>120</stArea:h><stArea:unit>pixel</stArea:unit></mwg-rs:Area>
   <mwg-rs:Name>Ada</mwg-rs:Name></rdf:li>
  <rdf:li rdf:parseType='Resource'>
   <mwg-rs:Area rdf:parseType='Resource'><stArea:x>0.6</stArea:x><stArea:y>0.4</stArea:y>
    <stArea:w>0.2</stArea:w><stArea:h>0.4</stArea:h></mwg-rs:Area>
   <mwg-rs:Name></mwg-rs:Name><mwg-rs:Type>Face</mwg-rs:Type></rdf:li>
 </rdf:Bag></mwg-rs:RegionList>
 <mwg-rs:AppliedToDimensions rdf:parseType='Resource'><stDim:w>400</stDim:w><stDim:h>300</stDim:h>
 </mwg-rs:AppliedToDimensions></mwg-rs:Regions>"""
MICROSOFT = """<MP:RegionInfo rdf:parseType="Resource"><MPRI:Regions><rdf:Bag>
<rdf:li MPReg:Rectangle="0.1, 0.2, 0.2, 0.4" MPReg:PersonDisplayName="Ada"/>
<rdf:li><rdf:Description><MPReg:Rectangle>0.5,0.2,0.2,0.4</MPReg:Rectangle></rdf:Description></rdf:li>
</rdf:Bag></MPRI:Regions></MP:RegionInfo>"""


def listed(*items: str) -> str:
    """The property mwg-rs:Regions in Lightroom's form."""
    bag = f"<rdf:Bag>{''.join(items)}</rdf:Bag>" if items else ""
    regions = f"<mwg-rs:RegionList>{bag}</mwg-rs:RegionList>" if items else "<mwg-rs:RegionList/>"
    return f"<mwg-rs:Regions><rdf:Description>{regions}</rdf:Description></mwg-rs:Regions>"


def packet(*properties: str) -> bytes:
    return f"{HEAD}{DESCRIPTION.format(''.join(properties))}{TAIL}".encode()


# --- frames -----------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_box_of_the_stored_image_is_where_pillow_turns_it(orientation: int) -> None:
    pixels = np.zeros((30, 40), np.uint8)
    pixels[6:18, 4:12] = 255  # ADA
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(stream)))
    rows, columns = np.nonzero(turned)
    height, width = turned.shape
    expected = (
        *(columns.min() / width, rows.min() / height),
        *((columns.max() + 1) / width, (rows.max() + 1) / height),
    )
    box = upright((0.1, 0.2, 0.3, 0.6), orientation)
    assert box == pytest.approx(expected)
    assert stored(box, orientation) == pytest.approx((0.1, 0.2, 0.3, 0.6))


@pytest.mark.parametrize(
    ("applied", "orientation", "expected"),
    [
        (None, 1, (1,)),
        (None, 3, (3, 1)),
        ((400, 300), 1, (1,)),
        ((4000, 2996), 1, (1,)),  # reduced
        ((300, 400), 1, ()),  # another shape
        ((300, 400), 6, (6,)),  # of the stored image
        ((400, 300), 6, (1,)),  # of the upright photo
        ((400, 300), 3, (3, 1)),  # both have this shape
        ((400, 400), 6, ()),
    ],
)
def test_dimensions_tell_the_frame_of_regions(
    applied: tuple[float, float] | None, orientation: int, expected: tuple[int, ...]
) -> None:
    assert frames(applied, (400, 300), orientation) == expected


def test_region_and_face_match_by_overlap_and_centres() -> None:
    face = (100.0, 100.0, 200.0, 200.0)
    around, inside = (50.0, 50.0, 250.0, 250.0), (130.0, 130.0, 170.0, 170.0)
    assert matched([around], [face]) == {0: 0}  # four times the area
    assert matched([inside], [face]) == {}  # a sixth of it
    beside = (160.0, 100.0, 260.0, 200.0)  # the centre of neither is in the other
    assert matched([beside], [face]) == {}
    near = (120.0, 100.0, 220.0, 200.0)
    assert matched([near, around], [face]) == {0: 0}  # each once, the largest overlap first
    assert matched([around], [near, face]) == {0: 1}
    assert matched([face, near], [near, face]) == {0: 1, 1: 0}
    assert matched([], [face]) == matched([face], []) == {}


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "applied"),
    [(DIGIKAM, (400, 300)), (EXIFTOOL, (400, 300)), (MICROSOFT, None)],
)
def test_regions_of_other_programs_are_read(
    content: str, applied: tuple[float, float] | None
) -> None:
    found = regions_of(packet(content))
    assert found.applied == applied
    assert [one.name for one in found.regions] == ["Ada", ""]
    assert found.regions[0].box == pytest.approx(ADA)
    assert found.regions[1].box == pytest.approx(BOB)


def test_region_in_both_schemas_counts_once() -> None:
    found = regions_of(packet(DIGIKAM, MICROSOFT))
    assert found == regions_of(packet(DIGIKAM))
    only_there = MICROSOFT.replace("0.5,0.2,0.2,0.4", "0.75,0.7,0.2,0.2")
    assert [one.name for one in regions_of(packet(DIGIKAM, only_there)).regions] == ["Ada", "", ""]


@pytest.mark.parametrize(
    "area",
    [
        'stArea:x="nan" stArea:y="0.4" stArea:w="0.2" stArea:h="0.4"',
        'stArea:x="inf" stArea:y="0.4" stArea:w="0.2" stArea:h="0.4"',
        'stArea:x="0.2" stArea:y="0.4" stArea:w="-0.2" stArea:h="0.4"',
        'stArea:x="0.2" stArea:y="0.4" stArea:w="0" stArea:h="0"',
        'stArea:x="900" stArea:y="0.4" stArea:w="0.2" stArea:h="0.4"',
        'stArea:x="0.2" stArea:y="0.4" stArea:d="0.2"',
        'stArea:x="2" stArea:y="4" stArea:w="2" stArea:h="4" stArea:unit="pixel"',
    ],
)
def test_area_that_is_no_box_is_left_out(area: str) -> None:
    inner = f'<rdf:Description mwg-rs:Name="Ada"><mwg-rs:Area {area}/></rdf:Description>'
    content = listed(f"<rdf:li>{inner}</rdf:li>")
    assert regions_of(packet(content)) == Regions()


def test_packet_of_too_many_regions_is_refused() -> None:
    one = '<rdf:li MPReg:Rectangle="0.1, 0.2, 0.2, 0.4"/>'

    def content(count: int) -> bytes:
        bag = f"<MPRI:Regions><rdf:Bag>{one * count}</rdf:Bag></MPRI:Regions>"
        return packet(f'<MP:RegionInfo rdf:parseType="Resource">{bag}</MP:RegionInfo>')

    assert len(regions_of(content(MAX_REGIONS)).regions) == MAX_REGIONS
    with pytest.raises(PacketError, match="it has 2,001 regions; at most 2,000 are read"):
        regions_of(content(MAX_REGIONS + 1))


@given(st.data())
def test_damaged_packet_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(packet(DIGIKAM, MICROSOFT))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        until = data.draw(st.integers(at, min(at + 60, len(content))))
        content[at:until] = data.draw(
            st.sampled_from([b"", b"<", b'"', b"/>", b"&a;", b"\xff", b"9"])
        )
    for use in (
        regions_of,
        lambda text: merge(text, [Region("Ö", ADA), Region("B", BOB)], (400, 300), 1),
    ):
        with suppress(PacketError):
            use(utf8_of(bytes(content)))


def test_packet_without_regions_has_none() -> None:
    assert regions_of(EMPTY) == regions_of(packet()) == Regions()


# --- merging ----------------------------------------------------------------------------------


def is_only_added(before: bytes, after: bytes) -> bool:
    """Whether ``after`` is ``before`` with one insertion."""
    start = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before)
    )
    rest = len(before) - start
    return before[:start] == after[:start] and (not rest or before[-rest:] == after[-rest:])


@pytest.mark.parametrize(
    "before",
    [
        EMPTY,
        packet(),
        f"{HEAD}{TAIL}".encode(),
        packet(DIGIKAM.replace('mwg-rs:Name="Ada"', 'mwg-rs:Name="Eve"').replace("0.2", "0.9")),
        packet("<mwg-rs:Regions rdf:parseType='Resource'><mwg-rs:Z>1</mwg-rs:Z></mwg-rs:Regions>"),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_merge_adds_regions_and_leaves_every_other_byte(before: bytes, orientation: int) -> None:
    size = (300, 400) if orientation == 6 else (400, 300)
    wanted = [Region("Grace", (0.05, 0.05, 0.2, 0.15)), Region("Ö <b>", (0.4, 0.05, 0.6, 0.15))]
    done = merge(before, wanted, size, orientation)
    assert (done.added, done.renamed) == (2, 0)
    assert is_only_added(before, done.packet)
    found = regions_of(done.packet)
    new = found.regions[-2:]
    assert [one.name for one in new] == ["Grace", "Ö <b>"]
    for one, expected in zip(new, wanted, strict=True):
        assert upright(one.box, orientation) == pytest.approx(expected.box, abs=1e-6)
    assert found.applied in (None, (400, 300))
    again = merge(done.packet, wanted, size, orientation)
    assert again == (done.packet, 0, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{HEAD[:-1]}/></x:xmpmeta>".encode(), "<rdf:RDF"),
        (packet(listed()), "</rdf:Bag>\n</mwg-rs:RegionList>"),
        (
            packet(listed("")).replace(b"<rdf:Bag></rdf:Bag>", b"<rdf:Bag/>"),
            "</rdf:Bag></mwg-rs:RegionList>",
        ),
        (packet("<mwg-rs:Regions/>"), "</mwg-rs:RegionList>\n</mwg-rs:Regions>"),
    ],
)
def test_merge_fills_what_is_empty(before: bytes, after: str) -> None:
    done = merge(before, [Region("Ada", ADA)], (400, 300), 1)
    assert after in done.packet.decode()
    (one,) = regions_of(done.packet).regions
    assert one.name == "Ada"
    assert one.box == pytest.approx(ADA)


def test_merge_uses_the_prefixes_that_are_there() -> None:
    text = packet(DIGIKAM).decode().replace("mwg-rs:", "r:").replace(":mwg-rs=", ":r=")
    text = text.replace("rdf:", "R:").replace(":rdf=", ":R=")
    done = merge(text.encode(), [Region("Grace", (0.8, 0.05, 0.9, 0.15))], (400, 300), 1).packet
    assert b"<R:li R:parseType" in done
    assert b"<r:Name>Grace</r:Name>" in done
    assert done.count(b"xmlns") == text.count("xmlns")


def test_merge_gives_names_to_regions_that_are_there_in_both_schemas() -> None:
    before = packet(DIGIKAM, MICROSOFT)
    done = merge(before, [Region("Ada L.", ADA), Region("Bob", BOB)], (400, 300), 1)
    assert (done.added, done.renamed) == (0, 4)
    assert [one.name for one in regions_of(done.packet).regions] == ["Ada L.", "Bob"]
    text = done.packet.decode()
    assert text.replace('"Ada L."', '"Ada"').count('"Ada"') == 2
    assert 'mwg-rs:Name="Rex" mwg-rs:Type="Pet"' in text
    added = f'<f:Name xmlns:f="{MWG}">Bob</f:Name>'
    assert added in text
    uri = "http://ns.microsoft.com/photo/1.2/t/Region#"
    more = f'<f:PersonDisplayName xmlns:f="{uri}">Bob</f:PersonDisplayName>'
    assert text.replace('"Ada L."', '"Ada"').replace(added, "").replace(more, "") == before.decode()


def test_merge_keeps_the_frame_of_the_regions_that_are_there() -> None:
    upright_list = packet(DIGIKAM)  # stated for 400×300, which is the upright photo
    done = merge(upright_list, [Region("Bob", BOB)], (400, 300), 6)
    assert (done.added, done.renamed) == (0, 1)
    stored_list = packet(DIGIKAM.replace("400", "_").replace("300", "400").replace("_", "300"))
    done = merge(stored_list, [Region("Bob", upright(BOB, 6))], (400, 300), 6)
    assert (done.added, done.renamed) == (0, 1)


def test_merge_of_regions_for_another_shape_is_refused() -> None:
    with pytest.raises(PacketError, match="regions are for an image of another shape"):
        merge(packet(DIGIKAM), [Region("Ada", ADA)], (300, 400), 1)


def test_merge_of_a_form_that_cannot_be_changed_is_refused() -> None:
    one = '<rdf:li MPReg:Rectangle="0.1, 0.2, 0.2, 0.4"/>'
    info = f"<MPRI:Regions><rdf:Bag>{one}</rdf:Bag></MPRI:Regions>"
    content = f'<MP:RegionInfo rdf:parseType="Resource">{info}</MP:RegionInfo>'
    with pytest.raises(PacketError, match="a region has no place for a name"):
        merge(packet(content), [Region("Ada", ADA)], (400, 300), 1)
    text = f'{HEAD}<rdf:Bag xmlns:mwg-rs="{MWG}"/>{TAIL}'.replace("rdf:RDF", "rdf:rdf")
    with pytest.raises(PacketError, match="no rdf:RDF"):
        merge(text.encode(), [Region("Ada", ADA)], (400, 300), 1)


@given(st.text(min_size=1, max_size=60).map(str.strip).filter(bool).filter(is_xml_text))
def test_any_name_survives_a_merge(name: str) -> None:
    done = merge(packet(), [Region(name, ADA)], (400, 300), 1).packet
    assert [one.name for one in regions_of(done).regions] == [name]
    renamed = merge(packet(DIGIKAM), [Region(name, ADA)], (400, 300), 1).packet
    assert regions_of(renamed).regions[0].name == name
