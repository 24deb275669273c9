"""Writes the tables of variables and outputs into the README of each Terraform module: `make format`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2

ROOT = Path(__file__).parents[2] / "terraform"
MARK = "<!-- What follows is written by `make format`. -->\n"


def modules() -> list[Path]:
    """Every directory that is a module or a root."""
    return sorted(path.parent for path in ROOT.rglob("versions.tf") if ".terraform" not in path.parts)


def readme(module: Path) -> str:
    """What the module's README is when its tables are up to date; what was written by hand stays before them."""
    file = module / "README.md"
    before = file.read_text().partition(MARK)[0] if file.exists() else _beginning(module)
    return before + MARK + _table(module, "variable") + _table(module, "output")


def _beginning(module: Path) -> str:
    purpose = (module / "main.tf").read_text().partition("\n")[0].removeprefix("# ")
    return f"# {module.name}\n\n{purpose}\n\n"


def _table(module: Path, kind: str) -> str:
    columns = ("variable", "what it is", "type", "unless given") if kind == "variable" else ("output", "what it is")
    lines = ["", f"## {kind.capitalize()}s", "", *_rows([columns, ("---",) * len(columns)])]
    return "\n".join([*lines, *_rows(_cells(name, block, kind) for name, block in _blocks(module, kind)), ""])


def _rows(cells: Any) -> Iterator[str]:
    return ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def _cells(name: str, block: dict[str, Any], kind: str) -> tuple[str, ...]:
    described = f"`{name}`", block["description"].strip('"')
    if kind == "output":
        return described
    return *described, f"`{_bare(block['type'])}`", f"`{_value(block['default'])}`" if "default" in block else "needed"


def _blocks(module: Path, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for block in hcl2.loads((module / f"{kind}s.tf").read_text()).get(kind, []):
        for name, values in block.items():
            yield name.strip('"'), values


def _bare(expression: str) -> str:
    """An expression as it stands in the file, on one line."""
    return " ".join(expression.removeprefix("${").removesuffix("}").split()) if "${" in expression else expression


def _value(default: Any) -> str:
    """A literal as it stands in the file; hcl2 keeps the quotes of strings."""
    return json.dumps(_unquoted(default))


def _unquoted(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip('"')
    if isinstance(value, list):
        return [_unquoted(each) for each in value]
    return value


if __name__ == "__main__":
    for each in modules():
        (each / "README.md").write_text(readme(each))
