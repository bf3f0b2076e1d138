"""The page of a report: one HTML file that loads nothing from elsewhere."""

from collections.abc import Sequence

from vlp_jax.reports.section import Section, text

STYLE = """
:root { color-scheme: light dark; --line: #dadce0; --soft: #5f6368; --good: #1a9850; --bad: #d93025;
  --card: #f8f9fa; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3c4043; --soft: #9aa0a6; --card: #202124; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p.soft, li.soft, .soft { color: var(--soft); }
nav a { margin-right: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-size: .9rem; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line);
  font-weight: normal; font-variant-numeric: tabular-nums; }
thead th { font-weight: 600; }
th:first-child { text-align: left; }
td.text { text-align: left; }
b { font-weight: 700; }
img.figure { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
img.picture { width: 96px; height: 96px; object-fit: contain; background: #fff; border-radius: 6px;
  border: 3px solid transparent; }
img.true { border-color: var(--good); }
.example { display: flex; flex-wrap: wrap; align-items: center; gap: .6rem; margin: .4rem 0;
  padding: .5rem .7rem; background: var(--card); border-radius: 8px; }
.example .query { flex: 0 0 11rem; overflow-wrap: anywhere; }
.example ol { margin: 0; padding-left: 1.4rem; }
.example .later { display: flex; align-items: center; gap: .6rem; }
.found { color: var(--good); } .missed { color: var(--bad); }
"""


def page(title: str, subtitle: str, sections: Sequence[Section], absent: Sequence[str]) -> str:
    """The HTML of a page.

    Args:
      title: its title.
      subtitle: a line below it.
      sections: its sections, in order.
      absent: lines about sections that the runs have nothing for.
    """
    links = "".join(f'<a href="#{anchor(part)}">{text(part.title)}</a>' for part in sections)
    body = "".join(
        f'<section id="{anchor(part)}"><h2>{text(part.title)}</h2>{part.body}</section>'
        for part in sections
    )
    if absent:
        lines = "".join(f'<li class="soft">{text(line)}</li>' for line in absent)
        body += f'<section id="absent"><h2>Not on this page</h2><ul>{lines}</ul></section>'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><header><h1>{text(title)}</h1>"
        f'<p class="soft">{text(subtitle)}</p><nav>{links}</nav></header><main>{body}</main>'
        "</body></html>\n"
    )


def anchor(section: Section) -> str:
    """The id of a section in the page."""
    return "".join(c if c.isalnum() else "-" for c in section.title.lower())
