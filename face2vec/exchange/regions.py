"""Face regions in XMP: of the Metadata Working Group (``mwg-rs``) and of Microsoft (``MP``).

A region is a name and a box in fractions of width and height. Programs state it for the image as
it is stored, before its orientation is applied; some state it for the upright image, and
``AppliedToDimensions`` tells which.

Sources: Guidelines for Handling Image Metadata 2.0 (MWG, 2010), 5.9; the schemas ``MP``, ``MPRI``
and ``MPReg`` of Windows Photo Gallery; ISO 16684-1 for the forms that a structure can have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from face2vec.exchange.xmp_tree import (
    RDF,
    Edit,
    Node,
    PacketError,
    body_of,
    container_of,
    edited,
    escaped,
    field_of,
    items_of,
    number_of,
    parsed,
    properties,
    rdf_of,
    text_of,
    value_replaced,
)
from face2vec.files import composed
from face2vec.types import Box, Point, overlap

MWG = "{http://www.metadataworkinggroup.com/schemas/regions/}"
_AREA = "{http://ns.adobe.com/xmp/sType/Area#}"
_DIMENSIONS = "{http://ns.adobe.com/xap/1.0/sType/Dimensions#}"
_MP = "{http://ns.microsoft.com/photo/1.2/}"
_INFO = "{http://ns.microsoft.com/photo/1.2/t/RegionInfo#}"
_REGION = "{http://ns.microsoft.com/photo/1.2/t/Region#}"

SAME_SHAPE = 0.02
"""Largest relative difference of two aspect ratios that count as one shape."""
MAX_REGIONS = 2000
"""Regions of a photo; every one is compared with every face."""
LEAST_OVERLAP = 0.2
"""Intersection over union from which on a region and a face can be the same face."""
_TWICE = 0.5  # intersection over union from which on two regions are one, stated in both schemas

EMPTY = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="face2vec">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
"""An XMP packet without properties."""


class Region(NamedTuple):
    """A face in a photo, as another program states it.

    Attributes:
        name: name of the person, empty if it has none.
        box: (left, top, right, bottom) in fractions of width and height.
    """

    name: str
    box: Box


@dataclass(frozen=True)
class Regions:
    """The face regions of a photo.

    Attributes:
        regions: the regions.
        applied: (width, height) in pixels of the image that they are stated for; None if unknown.
    """

    regions: tuple[Region, ...] = ()
    applied: tuple[float, float] | None = None


# --- frames -----------------------------------------------------------------------------------


def upright(box: Box, orientation: int) -> Box:
    """A box of the stored image in the upright image, both in fractions.

    Args:
        box: (left, top, right, bottom).
        orientation: 1…8 (EXIF 2.32, 4.6.4).
    """
    left, top, right, bottom = box
    if orientation in (5, 6, 7, 8):  # rows and columns change places
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 6, 7):
        left, right = 1 - right, 1 - left
    if orientation in (3, 4, 7, 8):
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def stored(box: Box, orientation: int) -> Box:
    """A box of the upright image in the stored image; the inverse of `upright`."""
    return upright(box, {6: 8, 8: 6}.get(orientation, orientation))


def frames(
    applied: tuple[float, float] | None, size: tuple[int, int], orientation: int
) -> tuple[int, ...]:
    """Orientations that may take regions to the upright photo, the most likely first.

    Args:
        applied: dimensions that the regions are stated for; None if unknown.
        size: (width, height) in pixels of the upright photo.
        orientation: that of the stored image.

    Returns:
        Empty if the regions are stated for an image of another shape.
    """
    turned = orientation in (5, 6, 7, 8)
    as_stored = size[::-1] if turned else size
    if applied is None:
        return (orientation,) if orientation == 1 else (orientation, 1)
    fits_stored, fits_upright = (_same_shape(applied, one) for one in (as_stored, size))
    if fits_stored and fits_upright:
        return (orientation,) if orientation == 1 else (orientation, 1)
    return (orientation,) * fits_stored + (1,) * fits_upright


def _same_shape(one: tuple[float, float], other: tuple[float, float]) -> bool:
    shapes = one[0] * other[1], one[1] * other[0]
    return abs(shapes[0] - shapes[1]) <= SAME_SHAPE * max(shapes)


def matched(regions: Sequence[Box], faces: Sequence[Box]) -> dict[int, int]:
    """The face of each region, both by place in their list.

    A region and a face match if the centre of each is in the other and their intersection over
    union is at least ``LEAST_OVERLAP``; programs draw their boxes differently large. Each belongs
    to one pair. The pairs with the largest overlap come first, and of these the nearest.

    Args:
        regions: boxes.
        faces: boxes, in the same units.
    """
    pairs = sorted(
        (-shared, math.dist(_centre(one), _centre(other)), region, face)
        for region, one in enumerate(regions)
        for face, other in enumerate(faces)
        if (shared := round(overlap(one, other), 6)) >= LEAST_OVERLAP
        and _has(one, _centre(other))
        and _has(other, _centre(one))
    )
    found: dict[int, int] = {}
    for _, _, region, face in pairs:
        if region not in found and face not in found.values():
            found[region] = face
    return found


def _centre(box: Box) -> Point:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _has(box: Box, point: Point) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


# --- reading ----------------------------------------------------------------------------------


class _Found(NamedTuple):
    region: Region
    node: Node
    name: str  # the tag of the field with the name


def regions_of(packet: bytes) -> Regions:
    """The face regions in an XMP packet in UTF-8.

    A region that both schemas state counts once. Regions of pets, bar codes and points of focus
    are left out, and areas without width and height.

    Raises:
        PacketError: the packet is refused, see `face2vec.exchange.xmp_tree.parsed`.
        MissingExtraError: defusedxml is not installed.
    """
    rdf = rdf_of(parsed(packet))
    found, applied = _found(rdf)
    return Regions(tuple(one.region for one in found), applied)


def _found(rdf: Node) -> tuple[list[_Found], tuple[float, float] | None]:
    first, applied = _of_mwg(rdf)
    more = [
        one
        for one in _of_microsoft(rdf)
        if all(overlap(one.region.box, other.region.box) < _TWICE for other in first)
    ]
    return first + more, applied


def _of_mwg(rdf: Node) -> tuple[list[_Found], tuple[float, float] | None]:
    applied = None
    found = []
    for info in properties(rdf, f"{MWG}Regions"):
        applied = _dimensions(field_of(info, f"{MWG}AppliedToDimensions")) or applied
        for item in items_of(field_of(info, f"{MWG}RegionList")):
            kind = text_of(field_of(item, f"{MWG}Type"))
            box = _area(field_of(item, f"{MWG}Area"), applied)
            if kind in ("Face", "") and box is not None:
                name = text_of(field_of(item, f"{MWG}Name"))
                found.append(_Found(Region(name, box), item, f"{MWG}Name"))
    return _few(found), applied


def _of_microsoft(rdf: Node) -> list[_Found]:
    found = []
    for info in properties(rdf, f"{_MP}RegionInfo"):
        for item in items_of(field_of(info, f"{_INFO}Regions")):
            box = _rectangle(text_of(field_of(item, f"{_REGION}Rectangle")))
            if box is not None:
                name = text_of(field_of(item, f"{_REGION}PersonDisplayName"))
                found.append(_Found(Region(name, box), item, f"{_REGION}PersonDisplayName"))
    return _few(found)


def _few(found: list[_Found]) -> list[_Found]:
    if len(found) > MAX_REGIONS:
        raise PacketError(f"it has {len(found):,} regions; at most {MAX_REGIONS:,} are read")
    return found


def _dimensions(value: Node | str | None) -> tuple[float, float] | None:
    if not isinstance(value, Node):
        return None
    width, height = (number_of(field_of(value, f"{_DIMENSIONS}{side}")) for side in "wh")
    return (width, height) if width and height and min(width, height) > 0 else None


def _area(value: Node | str | None, applied: tuple[float, float] | None) -> Box | None:
    if not isinstance(value, Node):
        return None
    x, y, w, h = (number_of(field_of(value, f"{_AREA}{name}")) for name in "xywh")
    if x is None or y is None or w is None or h is None:
        return None
    if text_of(field_of(value, f"{_AREA}unit")) == "pixel":
        if applied is None:
            return None
        x, w, y, h = x / applied[0], w / applied[0], y / applied[1], h / applied[1]
    return _checked((x - w / 2, y - h / 2, x + w / 2, y + h / 2))


def _rectangle(text: str) -> Box | None:
    try:
        left, top, width, height = map(float, text.split(","))
    except ValueError:
        return None
    return _checked((left, top, left + width, top + height))


def _checked(box: Box) -> Box | None:
    """The box if it has an area and is near the photo; NaN is neither."""
    left, top, right, bottom = box
    is_box = -1 <= left < right <= 2 and -1 <= top < bottom <= 2
    return box if is_box else None


# --- writing ----------------------------------------------------------------------------------


class Merged(NamedTuple):
    """What became of a packet.

    Attributes:
        packet: the new packet.
        added: number of regions that were added.
        renamed: number of regions that got another name.
    """

    packet: bytes
    added: int
    renamed: int


def merge(
    packet: bytes, wanted: Sequence[Region], size: tuple[int, int], orientation: int
) -> Merged:
    """Add regions to an XMP packet, and leave every other byte as it is.

    A region of the packet that matches a wanted one, see `matched`, keeps its area and gets its
    name. Nothing is removed.

    Args:
        packet: XMP in UTF-8.
        wanted: regions with names, in fractions of the upright photo.
        size: (width, height) in pixels of the upright photo.
        orientation: that of the stored image, 1…8.

    Raises:
        PacketError: the packet is refused, has regions for an image of another shape, or has a form
            that cannot be changed.
        MissingExtraError: defusedxml is not installed.
    """
    rdf = rdf_of(parsed(packet, [one[1:-1] for one in _USUAL]))
    of_mwg, applied = _of_mwg(rdf)
    frame = orientation
    if applied is not None:
        fitting = frames(applied, size, orientation)
        if not fitting:
            raise PacketError("its regions are for an image of another shape")
        frame = fitting[0]
    boxes = [stored(one.box, frame) for one in wanted]
    edits: list[Edit] = []
    renamed = 0
    known: set[int] = set()
    for some in (of_mwg, _of_microsoft(rdf)):  # a face in both must get its name in both
        pairs = matched([one.region.box for one in some], boxes)
        known.update(pairs.values())
        for place, number in pairs.items():
            one, name = some[place], wanted[number].name
            if composed(one.region.name) != composed(name):
                edit = value_replaced(packet, one.node, one.name, name)
                if edit is None:
                    raise PacketError("a region has no place for a name")
                edits.append(edit)
                renamed += 1
    new = [
        Region(one.name, box)
        for number, (one, box) in enumerate(zip(wanted, boxes, strict=True))
        if number not in known
    ]
    if new:
        turned = frame in (5, 6, 7, 8)
        edits.append(_addition(packet, rdf, new, size[::-1] if turned else size))
    done = edited(packet, edits) if edits else packet
    _check(done, wanted, boxes)
    return Merged(done, len(new), renamed)


def _check(packet: bytes, wanted: Sequence[Region], boxes: Sequence[Box]) -> None:
    """Check that a changed packet says what was wanted, before it replaces anything."""
    now = regions_of(packet).regions
    pairs = matched(boxes, [one.box for one in now])
    if any(
        number not in pairs or composed(now[pairs[number]].name) != composed(one.name)
        for number, one in enumerate(wanted)
    ):
        raise PacketError("its form is not known well enough to change it")


def _addition(packet: bytes, rdf: Node, new: Sequence[Region], size: tuple[int, int]) -> Edit:
    """The edit that adds regions where the packet has a list for them, or makes one."""
    for info in properties(rdf, f"{MWG}Regions"):
        regions = field_of(info, f"{MWG}RegionList")
        if isinstance(regions, Node):
            bag = container_of(regions)
            if bag is not None:
                return _inside(packet, bag, _items(bag.prefixes, new))
            return _inside(packet, regions, _bag(regions.prefixes, new))
        body = body_of(info)
        return _inside(packet, body, _list(body.prefixes, new))
    return _inside(packet, rdf, _description(rdf, new, size))


def _inside(packet: bytes, node: Node, content: bytes) -> Edit:
    if not node.is_empty:
        return node.close, node.close, content
    tag = packet[node.start : node.inside]
    name = tag[1:].split(None, 1)[0].rstrip(b"/>")
    return node.start, node.end, tag.rstrip(b"/>") + b">" + content + b"</" + name + b">"


_USUAL = {RDF: "rdf", MWG: "mwg-rs", _AREA: "stArea", _DIMENSIONS: "stDim"}


class _Scope:
    """Prefixes of namespaces, and the declarations of those that are not declared above.

    Args:
        above: prefix of each namespace that is declared above.
        namespaces: those that are needed.
    """

    def __init__(self, above: Mapping[str, str], *namespaces: str) -> None:
        missing = [one for one in namespaces if not above.get(one[1:-1])]
        self.prefixes = {**above, **{one[1:-1]: _USUAL[one] for one in missing}}
        self.declared = "".join(f' xmlns:{_USUAL[one]}="{one[1:-1]}"' for one in missing).encode()

    def __call__(self, tag: str) -> bytes:
        uri, _, name = tag[1:].rpartition("}")
        return f"{self.prefixes[uri]}:{name}".encode()


def _items(above: Mapping[str, str], new: Sequence[Region]) -> bytes:
    tag = _Scope(above, RDF, MWG, _AREA)
    parts = []
    for region in new:
        left, top, right, bottom = region.box
        area = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        numbers = b" ".join(
            b'%s="%s"' % (tag(f"{_AREA}{name}"), f"{value:.6f}".encode())
            for name, value in zip("xywh", area, strict=True)
        )
        parts.append(
            b'<%s%s %s="Resource">\n<%s>%s</%s>\n<%s>Face</%s>\n<%s %s %s="normalized"/>\n</%s>\n'
            % (
                *(tag(f"{RDF}li"), tag.declared, tag(f"{RDF}parseType")),
                *(tag(f"{MWG}Name"), escaped(region.name), tag(f"{MWG}Name")),
                *(tag(f"{MWG}Type"), tag(f"{MWG}Type")),
                *(tag(f"{MWG}Area"), numbers, tag(f"{_AREA}unit")),
                tag(f"{RDF}li"),
            )
        )
    return b"".join(parts)


def _bag(above: Mapping[str, str], new: Sequence[Region]) -> bytes:
    tag = _Scope(above, RDF)
    bag = tag(f"{RDF}Bag")
    return b"<%s%s>\n%s</%s>\n" % (bag, tag.declared, _items(tag.prefixes, new), bag)


def _list(above: Mapping[str, str], new: Sequence[Region]) -> bytes:
    tag = _Scope(above, MWG)
    regions = tag(f"{MWG}RegionList")
    return b"<%s%s>\n%s</%s>\n" % (regions, tag.declared, _bag(tag.prefixes, new), regions)


def _description(rdf: Node, new: Sequence[Region], size: tuple[int, int]) -> bytes:
    tag = _Scope(rdf.prefixes, RDF, MWG, _DIMENSIONS, _AREA)
    about = next(
        (one.attributes[f"{RDF}about"] for one in rdf.children if f"{RDF}about" in one.attributes),
        "",
    )
    return (
        b'<%s %s="%s"%s>\n<%s %s="Resource">\n<%s %s="%d" %s="%d" %s="pixel"/>\n%s</%s>\n</%s>\n'
    ) % (
        *(tag(f"{RDF}Description"), tag(f"{RDF}about"), escaped(about), tag.declared),
        *(tag(f"{MWG}Regions"), tag(f"{RDF}parseType"), tag(f"{MWG}AppliedToDimensions")),
        *(tag(f"{_DIMENSIONS}w"), size[0], tag(f"{_DIMENSIONS}h"), size[1]),
        *(tag(f"{_DIMENSIONS}unit"), _list(tag.prefixes, new), tag(f"{MWG}Regions")),
        tag(f"{RDF}Description"),
    )
