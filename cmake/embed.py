"""embed.py OUT SYMBOL FILE...: writes a C++ source that holds the files' texts (see Embed.cmake)."""
import sys
from pathlib import Path

out, symbol, files = sys.argv[1], sys.argv[2], sys.argv[3:]


def literal(text: str) -> str:
    # A compiler may limit one literal to 64 KiB: adjacent pieces are joined by it.
    pieces = [text[i:i + 8000] for i in range(0, len(text), 8000)] or [""]
    return "\n".join(f'R"fusible({p})fusible"' for p in pieces)


rows = "\n".join(f'    {{"{Path(f).name}",\n{literal(Path(f).read_text())}}},' for f in sorted(files))
Path(out).write_text('#include "passes/embedded.h"\n\nnamespace fusible {\n\n'
                     f"extern const EmbeddedText {symbol}[] = {{\n{rows}\n    {{nullptr, nullptr}},\n}};\n\n}}  // namespace fusible\n")
