"""A page as its reader sees it."""

from html.parser import HTMLParser

_VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """What a reader sees of a page, and that its elements are nested as they should be."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.texts, self.headings, self.rows, self._tables, self._open = [], [], [], [], [], []
        self.feed(content)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self._tables.append([])
        elif tag == "tr":
            self.rows.append([])
            self._tables[-1].append(self.rows[-1])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.texts.append(data)
        if self._open[-1:] == ["h2"]:
            self.headings.append(data)
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, start):
        (found,) = [row for row in self.rows if row[0].startswith(start)]
        return [" ".join(cell.split()) for cell in found]

    def tables(self, *heads):
        """Cells after the first by the first, of every row of each table whose heads begin so; heads by ``None``."""
        tidy = [[[" ".join(cell.split()) for cell in row] for row in table] for table in self._tables]
        found = [table for table in tidy if table[0][: len(heads)] == list(heads)]
        return [{None: table[0][1:]} | {row[0]: row[1:] for row in table[1:]} for table in found]

    def charts(self, start):
        """What charts say to those who can't see them."""
        return [each["aria-label"] for each in self.all("div") if each.get("aria-label", "").startswith(start)]
