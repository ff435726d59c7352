"""Files that are not a usable TorchScript archive: one function per way, each writes one. KINDS names the word that the message must hold."""
import collections
import pickle
import zipfile

import torch


def rewrite(source, target, change):
    """Copies an archive record by record; `change(name, data)` gives the new data, or None to leave the record out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            data = change(name.partition("/")[2], old.read(name))
            if data is not None:
                new.writestr(name, data)


def replaced(record, data):
    return lambda name, old: data if name == record else old


def missing(path, archive, model):
    pass


def directory(path, archive, model):
    path.mkdir()


def empty(path, archive, model):
    path.write_bytes(b"")


def truncated(path, archive, model):
    path.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])


def text(path, archive, model):
    path.write_text("a model, honestly\n" * 10)


def lfs_pointer(path, archive, model):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


def state_dict(path, archive, model):
    torch.save(model.state_dict(), path)


def eager_pickle(path, archive, model):
    torch.save(model, path)


def old_torch_save(path, archive, model):
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


def plain_pickle(path, archive, model):
    path.write_bytes(pickle.dumps(collections.OrderedDict(a=1)))


def exported(path, archive, model):
    torch.export.save(torch.export.export(model, (torch.randn(2, 3, 9, 9),)), path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


def other_zip(path, archive, model):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes/readme.txt", "hello")


def newer_version(path, archive, model):
    rewrite(archive, path, lambda name, data: b"99\n" if name in ("version", ".data/version") else data)


def outside_record(path, archive, model):
    rewrite(archive, path, lambda name, data: data)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("../../etc/cron.d/job", "x")


def zip_bomb(path, archive, model):
    rewrite(archive, path, lambda name, data: data)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/data/99", b"\0" * (64 << 20))


def damaged_directory(path, archive, model):
    data = bytearray(archive.read_bytes())
    start = data.find(b"PK\x01\x02")  # the first entry of the table of contents
    data[start:start + 4] = b"XXXX"
    path.write_bytes(data)


def far_record(path, archive, model):
    """The table of contents puts a tensor, which fusible does not read, behind the end of the file."""
    data = bytearray(archive.read_bytes())
    entry = data.rfind(b"PK\x01\x02", 0, data.rfind(b"/data/0"))
    data[entry + 42:entry + 46] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)


def cut_pickle(path, archive, model):
    rewrite(archive, path, lambda name, data: data[: len(data) // 2] if name == "data.pkl" else data)


def random_pickle(path, archive, model):
    rewrite(archive, path, replaced("data.pkl", bytes(range(256)) * 8))


def deep_pickle(path, archive, model):
    rewrite(archive, path, replaced("data.pkl", b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b"."))


def deep_tuple(path, archive, model):
    rewrite(archive, path, replaced("data.pkl", b"\x80\x02N" + b"\x85" * 200_000 + b"."))


def deep_late_append(path, archive, model):
    """Lists that are put into one another from the outside in: none of them is deep when it is put."""
    steps = b"".join(b"h%c]q%c\x61" % (index % 250, (index + 1) % 250) for index in range(100_000))
    rewrite(archive, path, replaced("constants.pkl", b"\x80\x02]q\0" + steps + b"."))


def deep_code(path, archive, model):
    rewrite(archive, path, lambda name, data: data.replace(b"return ", b"return " + b"(" * 100_000) if name.endswith(".py") else data)


def no_code(path, archive, model):
    rewrite(archive, path, lambda name, data: None if name.startswith("code/") else data)


def broken_code(path, archive, model):
    rewrite(archive, path, lambda name, data: b"class (:\n  nonsense" if name.endswith(".py") else data)


def unknown_operator(path, archive, model):
    rewrite(archive, path, lambda name, data: data.replace(b"torch.relu(", b"ops.nobody.knows(") if name.endswith(".py") else data)


def missing_tensor(path, archive, model):
    rewrite(archive, path, lambda name, data: None if name == "data/0" else data)


def short_tensor(path, archive, model):
    rewrite(archive, path, lambda name, data: data[:4] if name == "data/0" else data)


def large_view(path, archive, model):
    """The shape [8, 3, 3, 3] of the first weight becomes [8, 3, 3, 120]."""
    rewrite(archive, path, lambda name, data: data.replace(b"(K\x08K\x03K\x03K\x03t", b"(K\x08K\x03K\x03K\x78t") if name == "data.pkl" else data)


def two_records(path, archive, model):
    """A reader that takes the first of them and one that takes the last see different programs."""
    rewrite(archive, path, lambda name, data: data)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(next(name for name in file.namelist() if name.endswith("data.pkl")), b"\x80\x02N.")


def upper_case_record(path, archive, model):
    rewrite(archive, path, lambda name, data: data)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("model/DATA.pkl", b"\x80\x02N.")


def second_folder(path, archive, model):
    rewrite(archive, path, lambda name, data: data)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/data.pkl", b"\x80\x02N.")


def encrypted(path, archive, model):
    """The flag of an encrypted record, in its header and in the table of contents."""
    rewrite(archive, path, lambda name, data: data)
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(magic)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(magic, at + 4)
    path.write_bytes(data)


def damaged_stream(path, archive, model):
    """A deflated record whose bytes are no deflate stream."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        record = next(record for record in new.infolist() if record.filename.endswith("data.pkl"))
    data = bytearray(path.read_bytes())
    start = record.header_offset + 30 + len(record.filename)
    data[start:start + 40] = b"\xff" * 40
    path.write_bytes(data)


def calls_itself(path, archive, model):
    rewrite(archive, path, in_code(b"return ", b"return (self).forward(x, )\n    return "))


def in_code(old, new):
    """Replaces text in the code record of the root module."""
    def change(name, data):
        return data.replace(old, new) if name.startswith("code/") and old in data and b"class Small" in data else data
    return change


KINDS = {
    missing: "nothing at", directory: "directory", empty: "empty", truncated: "truncated", text: "another kind of file", lfs_pointer: "git lfs pull",
    state_dict: "state_dict", eager_pickle: "Small", old_torch_save: "pickle", plain_pickle: "pickle", exported: "torch.export",
    other_zip: "data.pkl", newer_version: "99", outside_record: "outside", zip_bomb: "unpacks", damaged_directory: "damaged", far_record: "damaged",
    cut_pickle: "damaged", random_pickle: "damaged", deep_pickle: "nests", deep_tuple: "nests", deep_late_append: "nests", deep_code: "nests",
    no_code: "can load", broken_code: "can load", unknown_operator: "nobody", missing_tensor: "can load", short_tensor: "holds 4",
    large_view: "reaches beyond", two_records: "one name", upper_case_record: "one name", second_folder: "one folder", encrypted: "damaged",
    damaged_stream: "damaged", calls_itself: "can load",
}

# Archives that torch loads, and whose loading writes MARK; each is the code of the root module, changed. The word that the message must hold.
MARK = "MARK"
_WRITE = b'torch.from_file("MARK", True, 4)'
_LOADING = b"""  def __setstate__(self: __torch__.conftest.Small, state: Tensor) -> NoneType:
    %s
    return None
  def forward("""


def _setstate(body):
    return b"  def forward(", _LOADING % body.replace(b"\n", b"\n    ")


RUNS = {
    "default_argument": (b"x: Tensor)", b"x: Tensor, y: Tensor=" + _WRITE + b")", "default argument"),
    "class_constant": (b"  def forward(", b"  mark : Final[Tensor] = " + _WRITE + b"\n  def forward(", "class constant"),
    "large_default": (b"x: Tensor)", b"x: Tensor, y: List[int]=[0] * 1000)", "arithmetic"),
    "setstate": (*_setstate(b"_0 = " + _WRITE), "torch.from_file"),
    "setstate_spaces": (*_setstate(b"_0 = torch . from_file (\"MARK\", True, 4)"), "torch.from_file"),
    "setstate_alias": (*_setstate(b"helper = torch.from_file\n_0 = helper(\"MARK\", True, 4)"), "torch.from_file"),
    "setstate_module_alias": (*_setstate(b"_0 = torch\n_1 = _0.from_file(\"MARK\", True, 4)"), "torch"),
    "setstate_nested": (*_setstate(b"def inner() -> Tensor:\n  pass\n_0 = " + _WRITE), "`def`"),
    "setstate_loop": (*_setstate(b"for _0 in range(1000000000):\n  pass"), "`for`"),
    "setstate_method": (*_setstate(b"_0 = (state).sum()"), ".sum"),
    "setstate_call": (*_setstate(b"_0 = (self).forward(state, )"), "__setstate__"),
    "setstate_submodule": (*_setstate(b"_0 = (self.conv)(state, )"), "__setstate__"),
    "hidden_in_string": (b"  def forward(", b'  """\n  """\n  def __setstate__(self: __torch__.conftest.Small, state: Tensor) -> NoneType:\n    return None\n  def forward(',
                         "does not write"),
}

