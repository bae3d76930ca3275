"""XMP as a tree with places, and what is refused."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from face2vec.exchange import xmp_tree
from face2vec.exchange.xmp_tree import (
    RDF,
    PacketError,
    edited,
    escaped,
    field_of,
    is_xml_text,
    items_of,
    number_of,
    parsed,
    rdf_of,
    text_of,
    utf8_of,
    value_replaced,
)

SPACES = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:a="urn:a#"'
NAME = "{urn:a#}Name"

BOMB = b"""<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">&b;</rdf:RDF>"""
OUTSIDE = b"""<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>"""


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (BOMB, "it declares a document type or entities"),
        (OUTSIDE, "it declares a document type or entities"),
        (b"<!DOCTYPE x><x/>", "it declares a document type or entities"),
        (b"<x>" * 300 + b"</x>" * 300, "200 levels"),
        (b"<x><y></x>", "it is not well-formed XML"),
        (b"", "it is not well-formed XML"),
        (b"\x89PNG", "it is not well-formed XML"),
        (b"<x>&undefined;</x>", "it is not well-formed XML"),
    ],
)
def test_unsafe_or_broken_packet_is_refused(packet: bytes, reason: str) -> None:
    with pytest.raises(PacketError, match=reason):
        parsed(packet)


def test_packet_of_too_many_elements_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(parsed(b"<x>" + b"<y/>" * 9 + b"</x>").children) == 9
    monkeypatch.setattr(xmp_tree, "MAX_ELEMENTS", 9)
    with pytest.raises(PacketError, match="more than 9 elements"):
        parsed(b"<x>" + b"<y/>" * 9 + b"</x>")


def test_many_namespaces_cost_no_memory() -> None:
    """Each element would copy the prefixes of those around it."""
    names = "".join(f' xmlns:n{n}="urn:{n}"' for n in range(20_000))
    inner = "".join(f'<a xmlns:m="urn:m{n}"/>' for n in range(20_000))
    root = parsed(f"<x{names}>{inner}</x>".encode(), ["urn:7", "urn:m3"])
    assert root.prefixes == {"urn:7": "n7"}
    assert root.children[3].prefixes == {"urn:7": "n7", "urn:m3": "m"}
    assert root.children[4].prefixes is root.prefixes


def test_file_of_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xmp_tree, "MAX_PACKET", 100)
    assert utf8_of(b"x" * 100) == b"x" * 100
    with pytest.raises(PacketError, match="it has 101 bytes; at most 100 are read"):
        utf8_of(b"x" * 101)


def test_file_is_read_as_utf8_or_utf16() -> None:
    text = "<a>é</a>\n"
    for content in (
        text.encode(),
        codecs.BOM_UTF8 + text.encode(),
        text.encode("utf-16"),
        codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    ):
        assert utf8_of(content) == text.encode()
    with pytest.raises(PacketError, match="neither UTF-8 nor UTF-16"):
        utf8_of(text.encode("latin-1"))


def test_elements_know_their_places() -> None:
    packet = "<?pi?><x é='>' b=\"'/>\">é<y/> <z  a='1'\n>t</z ></x>".encode()
    root = parsed(packet)
    y, z = root.children
    assert packet[root.start : root.inside] == "<x é='>' b=\"'/>\">".encode()
    assert packet[root.close : root.end] == b"</x>"
    assert (packet[y.start : y.end], y.is_empty) == (b"<y/>", True)
    assert (packet[z.inside : z.close], z.is_empty) == (b"t", False)
    assert packet[z.start : z.end] == b"<z  a='1'\n>t</z >"
    assert [node.tag for node in root.walk()] == ["x", "y", "z"]


@pytest.mark.parametrize(
    "inner",
    [
        "<a:S a:Name='Ada &amp; Ö'/>",
        "<a:S rdf:parseType='Resource'><a:Name>Ada &amp; Ö</a:Name></a:S>",
        "<a:S rdf:parseType='Resource'><a:Name> Ada <![CDATA[& Ö]]> </a:Name></a:S>",
        "<a:S><rdf:Description a:Name='Ada &#38; &#xD6;'/></a:S>",
        "<a:S><rdf:Description><a:Name>Ada &amp; Ö</a:Name></rdf:Description></a:S>",
        "<a:S><a:Name><rdf:Alt><rdf:li xml:lang='x-default'>Ada &amp; Ö</rdf:li></rdf:Alt>"
        "</a:Name></a:S>",
        "<a:S><a:Name rdf:parseType='Resource'><rdf:value>Ada &amp; Ö</rdf:value></a:Name></a:S>",
    ],
)
def test_field_is_read_in_every_form(inner: str) -> None:
    (owner,) = parsed(f"<rdf:RDF {SPACES}>{inner}</rdf:RDF>".encode()).children
    assert text_of(field_of(owner, NAME)) == "Ada & Ö"
    assert field_of(owner, "{urn:a#}Other") is None


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ('<a:S a:Name="old" a:Z="1"/>', '<a:S a:Name="%s" a:Z="1"/>'),
        ("<a:S a:Z='a:Name=\"x\"' a:Name = 'old'/>", '<a:S a:Z=\'a:Name="x"\' a:Name = "%s"/>'),
        ("<a:S><a:Name q='1'>old</a:Name></a:S>", "<a:S><a:Name q='1'>%s</a:Name></a:S>"),
        ("<a:S><a:Name/><a:Z/></a:S>", "<a:S><a:Name>%s</a:Name><a:Z/></a:S>"),
        (
            "<a:S><rdf:Description a:Z='1'><a:T/></rdf:Description></a:S>",
            "<a:S><rdf:Description a:Z='1'><a:T/>"
            '<f:Name xmlns:f="urn:a#">%s</f:Name></rdf:Description></a:S>',
        ),
    ],
)
def test_replaced_value_leaves_all_other_bytes(inner: str, expected: str) -> None:
    packet = f"<rdf:RDF {SPACES}>{inner}</rdf:RDF>".encode()
    name = "Ada \"<&>' Ö"
    edit = value_replaced(packet, parsed(packet).children[0], NAME, name)
    assert edit is not None
    new = edited(packet, [edit])
    assert new == f"<rdf:RDF {SPACES}>{expected % escaped(name).decode()}</rdf:RDF>".encode()
    assert text_of(field_of(parsed(new).children[0], NAME)) == name


def test_value_without_a_place_is_not_replaced() -> None:
    packet = f"<rdf:RDF {SPACES}><a:S/></rdf:RDF>".encode()
    assert value_replaced(packet, parsed(packet).children[0], NAME, "Ada") is None


@given(st.text(max_size=40))
def test_any_text_that_xml_can_hold_is_written_and_read(text: str) -> None:
    as_element, as_attribute = b"<x>%s</x>", b'<x a="%s"/>'
    try:
        content = escaped(text)
    except UnicodeEncodeError:
        assert not is_xml_text(text)
        return
    if not is_xml_text(text):
        for form in (as_element, as_attribute):
            with pytest.raises(PacketError, match="not well-formed"):
                parsed(form % content)
        return
    assert parsed(as_element % content).text == text
    assert parsed(as_attribute % content).attributes["a"] == text


def test_items_and_numbers_are_read() -> None:
    inner = (
        "<a:S><rdf:Bag><rdf:li>0.5</rdf:li><rdf:li>x</rdf:li><rdf:li>nan</rdf:li></rdf:Bag></a:S>"
    )
    (owner,) = parsed(f"<rdf:RDF {SPACES}>{inner}</rdf:RDF>".encode()).children
    assert [number_of(item) for item in items_of(owner)] == [0.5, None, None]
    assert items_of("text") == items_of(None) == []


def test_packet_without_rdf_is_refused() -> None:
    assert rdf_of(parsed(f"<x><rdf:RDF {SPACES}/></x>".encode())).tag == f"{RDF}RDF"
    with pytest.raises(PacketError, match="it has no rdf:RDF, so it is not XMP"):
        rdf_of(parsed(b"<html/>"))
