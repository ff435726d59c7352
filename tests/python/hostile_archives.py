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


KINDS = {
    missing: "nothing at", directory: "directory", empty: "empty", truncated: "truncated", text: "another kind of file", lfs_pointer: "git lfs pull",
    state_dict: "state_dict", eager_pickle: "Small", old_torch_save: "pickle", plain_pickle: "pickle", exported: "torch.export",
    other_zip: "data.pkl", newer_version: "99", outside_record: "outside", zip_bomb: "unpacks", damaged_directory: "damaged",
    cut_pickle: "damaged", random_pickle: "damaged", deep_pickle: "nests", deep_tuple: "nests", deep_late_append: "nests", deep_code: "nests",
    no_code: "can load", broken_code: "can load", unknown_operator: "nobody", missing_tensor: "can load", short_tensor: "holds 4",
    large_view: "reaches beyond",
}
