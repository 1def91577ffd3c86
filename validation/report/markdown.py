"""A report as Markdown: the tables and the words; charts are on the page only."""

from __future__ import annotations

from simtti.pages.document import Report, Table


def text(report: Report) -> str:
    lines = [f"# {report.title}", "", report.subtitle, ""]
    lines += [f"- **{fact.name}: {fact.value}**, {fact.hint}" for fact in report.facts]
    lines += [""] * bool(report.facts)
    for paragraph in report.summary:
        lines += [paragraph, ""]
    if report.cautions:
        lines += [f"## {report.cautions_title}", "", *(f"- {line}" for line in report.cautions), ""]
    for section in report.sections:
        tables = [block for block in section.blocks if isinstance(block, Table)]
        if not tables:
            continue
        lines += [f"## {section.title}", ""]
        for paragraph in section.text:
            lines += [paragraph, ""]
        for table in tables:
            lines += [*_table(table), ""]
            if table.caption:
                lines += [table.caption, ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(table: Table) -> list[str]:
    rule = ["---" if table.is_text(at) else "---:" for at in range(len(table.columns))]
    rows = [[f"**{cell.text}**" if cell.mark else cell.text for cell in row] for row in table.rows]
    return [_line(row) for row in (list(table.columns), rule, *rows)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
