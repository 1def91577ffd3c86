"""What a browser would load or show of a page."""

import re
from html.parser import HTMLParser

MOST_BYTES = 2_000_000
_VOID = {"meta", "link", "use", "br", "img", "path", "rect"}
# What a line of a phone, 390 pixels wide, holds at least.
LONGEST_WORD = 40


class Page(HTMLParser):
    """Addresses, ids, heads (h2), visible texts (drawn: those in plots); drawings: of each svg how many marks have a tip and how many shapes
    it has; cells: texts within tables."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.ids, self.heads, self.texts, self.cells, self.tips, self.inside = (
            [],
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self.drawings, self.drawn = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset", "action", "data")
        ]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "svg":
            self.drawings.append({"label": attributes["aria-label"], "tips": 0, "shapes": 0})
        if tag in ("path", "use") and "svg" in self.inside:
            self.drawings[-1]["shapes"] += 1
        if tag not in _VOID:
            self.inside.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.inside.pop()

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self.inside.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if not data.strip() or {"style", "script"} & set(self.inside):
            return
        if "h2" in self.inside:
            self.heads.append(data)
        if "title" in self.inside and "svg" in self.inside:
            self.tips.append(data)
            self.drawings[-1]["tips"] += 1
        else:
            (self.drawn if "svg" in self.inside else self.texts).append(data)
        if "td" in self.inside:
            self.cells.append(data)


def check(text, names_in_tables=False):
    """What every page of simtti keeps to; the parsed page. names_in_tables: a table may have fields of device files."""
    page = Page(text)
    assert not page.inside, "elements are left open"
    assert len(text.encode()) < MOST_BYTES
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert not re.search(r"@import|url\((?!#)", text)
    for drawing in page.drawings:
        assert drawing["tips"], f"{drawing['label']}: nothing is drawn"
        assert drawing["shapes"] > drawing["tips"]
    for said in (*page.drawn, *page.tips, *(() if names_in_tables else page.texts)):
        assert not re.search(r"[a-z0-9]_[a-z0-9]", said), f"an identifier: {said!r}"
    # Prose cells break anywhere; so do hashes in them.
    for said in page.texts:
        if said not in page.cells:
            assert max(map(len, said.split()), default=0) <= LONGEST_WORD, said
    # No colour that does not turn with light and dark.
    body = text[text.index("<body>") :]
    assert not re.search(r"(?:fill|stroke): #", body)
    return page
