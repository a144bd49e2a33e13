"""Prints LAVIS's instruction templates for questions about videos, as the setting `answering.templates` in TOML.

    git clone https://github.com/salesforce/LAVIS
    python scripts/reference/lavis_templates.py LAVIS/lavis/processors/instruction_text_processors.py

Reads the file's `TEMPLATES[...][...] = [...]` without running it.
"""

import ast
import json
import sys
from pathlib import Path


def templates(source, modality="video", task="qa"):
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == f"TEMPLATES['{modality}']['{task}']":
            return ast.literal_eval(statement.value)
    raise SystemExit(f"there is no TEMPLATES[{modality!r}][{task!r}]")


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    found = templates(Path(sys.argv[1]).read_text())
    print("answering.templates = [")
    for template in found:
        print(f"  {json.dumps(template.strip())},")
    print("]")


if __name__ == "__main__":
    main()
