"""What Python reads of an archive before torch may: any bytes end in one sentence, or in nothing to say, and take memory that they account for.

`python tests/libfuzzer/read_archive.py CORPUS -max_total_time=600` with atheris; test_damaged_archives.py reads the corpus without it.
"""
import sys
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

WHOLE = Path(__file__).parents[1] / "golden" / "state1_rows.pt"
# What the first byte of an input says about the rest: the whole file, or a record of a whole archive.
RECORDS = (None, "data.pkl", "constants.pkl", "code/__torch__.py", "code/__torch__.py.debug_pkl", "version", "data/0", "anything")


def archive_of(data: bytes) -> bytes:
    record = RECORDS[data[0] % len(RECORDS)] if data else None
    if record is None:
        return data[1:]
    made = BytesIO()
    with zipfile.ZipFile(WHOLE) as whole, zipfile.ZipFile(made, "w") as changed:
        records = {name.partition("/")[2]: whole.read(name) for name in whole.namelist()} | {record: data[1:]}
        for name, content in records.items():
            changed.writestr(f"whole/{name}", content)
    return made.getvalue()


def read(data: bytes) -> None:
    from fusible.archive import Contents, problem_of, runs_code

    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        file.write(archive_of(data))
        file.flush()
        path = Path(file.name)
        says = problem_of(path)
        if says is None:
            says = runs_code(path)
            Contents.of(path)
        assert says is None or (says and "\n" not in says), says


if __name__ == "__main__":
    import atheris

    program, *options = sys.argv
    sys.argv = ["fusible"]  # the name by which the package keeps from loading torch
    sys.path.insert(0, str(Path(__file__).parents[2] / "python"))
    with atheris.instrument_imports(include=["fusible"]):
        import fusible.archive  # noqa: F401
    atheris.Setup([program, *options], read)
    atheris.Fuzz()
