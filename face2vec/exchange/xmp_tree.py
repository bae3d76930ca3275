"""An XMP packet as a tree whose elements know their places in the text.

The places let a writer replace a few bytes and leave all others as another program wrote them.
Documents that could expand in memory are refused: a document type, entities, too many elements.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from face2vec.errors import MissingExtraError
from face2vec.files import decoded
from face2vec.photos.packets import MAX_PACKET

MAX_ELEMENTS = 200_000
MAX_DEPTH = 200

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_CONTAINERS = (f"{RDF}Bag", f"{RDF}Seq", f"{RDF}Alt")
_TAG_END = re.compile(rb"""(?:[^"'>]++|"[^"]*+"|'[^']*+')*+>""")
_ATTRIBUTE = re.compile(rb"""([^\s=<>"'/]+)\s*=\s*("[^"]*"|'[^']*')""")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class PacketError(ValueError):
    """An XMP packet is refused; the message is a short reason in lower case."""


@dataclass(eq=False, slots=True)
class Node:
    """An element.

    Attributes:
        tag: name as ``{namespace}name``.
        attributes: values by name, in order, without declarations of namespaces.
        prefixes: prefix of each namespace that was asked for and is declared here or above.
        start: where its start tag begins, in bytes of the packet.
        inside: where its start tag ends.
        close: where its end tag begins; that of the start tag if it has none.
        end: where it ends.
        children: the elements in it.
        text: its text without that of its children.
    """

    tag: str
    attributes: dict[str, str]
    prefixes: dict[str, str]
    start: int
    inside: int
    close: int = 0
    end: int = 0
    children: list[Node] = field(default_factory=list)
    text: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it is one tag, such as ``<a/>``."""
        return self.end == self.inside

    def walk(self) -> Iterator[Node]:
        """The element and all below it."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


class _Builder:
    """Receives the events of the parser.

    Args:
        packet: the text that is parsed.
        namespaces: those whose prefixes are kept; a packet may declare any number of others.
    """

    def __init__(self, packet: bytes, namespaces: Collection[str]) -> None:
        self.packet, self._namespaces = packet, namespaces
        self.parser: Any = None
        self.root: Node | None = None
        self._open: list[Node] = []
        self._count = 0
        self._declared: dict[str, str] = {}

    def start_ns(self, prefix: str, uri: str) -> None:
        if uri in self._namespaces:
            self._declared[uri] = prefix or ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            raise PacketError(f"it has more than {MAX_ELEMENTS:,} elements, or {MAX_DEPTH} levels")
        start = self.parser.CurrentByteIndex
        ends = _TAG_END.match(self.packet, start)
        above = self._open[-1].prefixes if self._open else {}
        prefixes = {**above, **self._declared} if self._declared else above
        self._declared = {}
        node = Node(tag, dict(attributes), prefixes, start, ends.end() if ends else start)
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node
        self._open.append(node)

    def end(self, tag: str) -> None:
        node = self._open.pop()
        at = self.parser.CurrentByteIndex
        if self.packet[node.inside - 2 : node.inside] == b"/>":
            node.close = node.end = node.inside
            return
        ends = _TAG_END.match(self.packet, at)
        node.close, node.end = at, ends.end() if ends else at

    def data(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text

    def close(self) -> Node | None:
        return self.root


def utf8_of(content: bytes) -> bytes:
    """An XMP file as UTF-8, without a byte order mark.

    Raises:
        PacketError: it is too large, or neither UTF-8 nor UTF-16.
    """
    if len(content) > MAX_PACKET:
        raise PacketError(f"it has {len(content):,} bytes; at most {MAX_PACKET:,} are read")
    try:
        return decoded(content, errors="strict").encode()
    except UnicodeError as error:
        raise PacketError("it is neither UTF-8 nor UTF-16") from error


def parsed(packet: bytes, namespaces: Collection[str] = ()) -> Node:
    """The root of a packet in UTF-8.

    Args:
        packet: the packet.
        namespaces: those whose prefixes are wanted, see `Node.prefixes`.

    Raises:
        PacketError: it is not well-formed, or has a document type, entities, too many elements or
            too many levels.
        MissingExtraError: defusedxml is not installed.
    """
    try:
        from defusedxml.common import DefusedXmlException
        from defusedxml.ElementTree import DefusedXMLParser, ParseError
    except ImportError as error:
        raise MissingExtraError("reading XMP", "defusedxml", "xmp") from error
    builder = _Builder(packet, namespaces)
    parser = DefusedXMLParser(target=builder, encoding="utf-8", forbid_dtd=True)
    builder.parser = parser.parser
    try:
        parser.feed(packet)
        root: Node | None = parser.close()
    except DefusedXmlException as error:
        raise PacketError("it declares a document type or entities; XMP never does") from error
    except (ParseError, ValueError) as error:
        if isinstance(error, PacketError):
            raise
        raise PacketError(f"it is not well-formed XML ({error})") from error
    if root is None:
        raise PacketError("it has no element")
    return root


def rdf_of(root: Node) -> Node:
    """The element rdf:RDF.

    Raises:
        PacketError: there is none.
    """
    for node in root.walk():
        if node.tag == f"{RDF}RDF":
            return node
    raise PacketError("it has no rdf:RDF, so it is not XMP")


def properties(rdf: Node, tag: str) -> list[Node]:
    """The properties of a name, of all descriptions in rdf:RDF."""
    return [
        child
        for description in rdf.children
        if description.tag == f"{RDF}Description"
        for child in description.children
        if child.tag == tag
    ]


def body_of(node: Node) -> Node:
    """The element that has the fields of a structure: the description in it, or itself."""
    inner = [child for child in node.children if child.tag == f"{RDF}Description"]
    return inner[0] if inner else node


def field_of(node: Node, tag: str) -> Node | str | None:
    """A field of a structure: an element, or the value of an attribute."""
    body = body_of(node)
    for place in (body, node):
        for child in place.children:
            if child.tag == tag:
                return child
        if tag in place.attributes:
            return place.attributes[tag]
    return None


def container_of(node: Node) -> Node | None:
    """The rdf:Bag, rdf:Seq or rdf:Alt in an element."""
    return next((child for child in node.children if child.tag in _CONTAINERS), None)


def items_of(node: Node | str | None) -> list[Node]:
    """The items of an array."""
    container = container_of(node) if isinstance(node, Node) else None
    return [] if container is None else [c for c in container.children if c.tag == f"{RDF}li"]


def text_of(value: Node | str | None) -> str:
    """A simple value without blanks around it; the first of an array."""
    if isinstance(value, Node):
        items = items_of(value)
        if items:
            return text_of(items[0])
        inner = next((c for c in value.children if c.tag == f"{RDF}value"), None)
        return (value if inner is None else inner).text.strip()
    return (value or "").strip()


def number_of(value: Node | str | None) -> float | None:
    """A number, or None if it is none, or not finite."""
    try:
        number = float(text_of(value))
    except ValueError:
        return None
    return number if abs(number) < 1e12 else None


def is_xml_text(text: str) -> bool:
    """Whether XML can hold a text: it has no control characters and no noncharacters."""
    return _NOT_XML.search(text) is None


def escaped(text: str) -> bytes:
    """A text for an element or an attribute in double quotes."""
    return escape(text, {'"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}).encode()


Edit = tuple[int, int, bytes]
"""Where a packet is changed, from one byte to another, and what stands there then."""


def value_replaced(packet: bytes, owner: Node, tag: str, text: str) -> Edit | None:
    """The edit that gives a field of a structure another text.

    Args:
        packet: the packet.
        owner: the structure.
        tag: the field, ``{namespace}name``.
        text: the new text.

    Returns:
        None if the field is missing and has no place.
    """
    found = field_of(owner, tag)
    new = escaped(text)
    if isinstance(found, Node):
        if found.is_empty:
            name = packet[found.start + 1 : found.inside].split(None, 1)[0].rstrip(b"/>")
            return found.start, found.end, b"<%s>%s</%s>" % (name, new, name)
        return found.inside, found.close, new
    body = body_of(owner)
    for place in (body, owner):
        if tag in place.attributes:
            return _attribute_replaced(packet, place, list(place.attributes).index(tag), new)
    if body.is_empty:
        return None
    uri, _, name_only = tag[1:].partition("}")
    return body.close, body.close, b'<f:%s xmlns:f="%s">%s</f:%s>' % (
        name_only.encode(), uri.encode(), new, name_only.encode(),
    )  # fmt: skip


def _attribute_replaced(packet: bytes, node: Node, place: int, new: bytes) -> Edit:
    found = [
        match
        for match in _ATTRIBUTE.finditer(packet, node.start, node.inside)
        if match[1] != b"xmlns" and not match[1].startswith(b"xmlns:")
    ]
    return *found[place].span(2), b'"' + new + b'"'


def edited(packet: bytes, edits: list[Edit]) -> bytes:
    """A packet with parts of it replaced; edits at one place are made in their order."""
    parts, at = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        parts += [packet[at:start], new]
        at = end
    return b"".join([*parts, packet[at:]])
