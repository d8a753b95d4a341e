"""Reads a page of HTML, and refuses what does not nest."""

import html.parser
import re

# Void elements, which are never closed.
VOID = {"meta", "br", "hr", "img", "link", "wbr"}


class Page(html.parser.HTMLParser):
    """Checks that elements nest, and gathers what is in them."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.open = []
        self.elements = []
        self.texts = []
        self.cells = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.cells[-1][-1] += data

    def tags(self):
        return {tag for tag, _ in self.elements}

    def headings(self):
        """The headings of the sections."""
        return re.findall(r"<h2>(.*?)</h2>", self.text)

    def check_alone(self):
        """Nothing is fetched or run, and every reference has its one target."""
        assert not self.tags() & {"script", "link", "img", "iframe", "base"}
        ids = [a["id"] for _, a in self.elements if "id" in a]
        assert len(ids) == len(set(ids))
        for tag, attributes in self.elements:
            assert not {"src", "srcset"} & set(attributes)
            assert not [x for x in attributes if x.startswith("on")], tag
            target = attributes.get("href", attributes.get("xlink:href"))
            if target is not None:
                assert target[0] == "#" and target[1:] in ids
            for name, value in attributes.items():
                for target in re.findall(r"url\(([^)]*)\)", value or ""):
                    assert target[0] == "#" and target[1:] in ids
                if name.startswith("aria-labelledby"):
                    assert value in ids
        [style] = re.findall(r"<style>(.*?)</style>", self.text, re.DOTALL)
        assert "url(" not in style and "@import" not in style
        assert "http://" not in self.text and "https://" not in self.text
        for tag, attributes in self.elements:
            if tag == "svg":
                assert attributes["role"] == "img" and attributes["aria-label"]
