"""Races fusible against what people would run instead: each peer in a process of its own, in turn, round by round.

    python bench/race.py --quick                         four models, batch 1, all cores: some minutes
    python bench/race.py                                 everything: hours
    python bench/race.py --models resnet50 --peers freeze,fusible --batches 1 --threads 2

Writes race.json, race.md and race.svg to --out, the table to stdout and progress to stderr. A peer that is not installed or fails is named
with the reason. With --check, exits 1 when fusible is slower than freeze anywhere (median ratio below 1 or 10th percentile below 0.97).
"""
import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import PEERS
from plot import svg
from racers import HERE, Failed, Racer
from summary import round_figures, slower_than
from tables import markdown

QUICK = "resnet50,mobilenet_v2,bert,mlp"
ALL = ("resnet18,resnet50,vgg16,vgg16_bn,mobilenet_v2,mobilenet_v3_large,efficientnet_b0,densenet121,googlenet,inception_v3,shufflenet_v2_x1_0,convnext_tiny,"
       "vit_b_16,resnext50_32x4d,deeplabv3_resnet50,regnety_016,mixer_s32_224,edgenext_small,bert,distilbert,mlp,lstm")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help=f"comma-separated; default: {ALL}")
    parser.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s")
    parser.add_argument("--batches", help="default: 1,8")
    parser.add_argument("--threads", help="default: 1 and 2, as far as there are cores")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK}, batch 1, all cores up to 2")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s; fewer than 7 say little")
    parser.add_argument("--seconds", type=float, default=0.4, help="timed calls of one peer in one round; default: %(default)s")
    parser.add_argument("--base", default="freeze", help="peer that the table's ratios are taken against; default: %(default)s")
    parser.add_argument("--out", default="build/race", help="folder for race.json, race.md, race.svg; default: %(default)s")
    parser.add_argument("--prepared", help="folder in which networks and peers' files are kept for the next race; fusible's are always made anew")
    parser.add_argument("--check", action="store_true", help="exit 1 when fusible is slower than freeze")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    options.models = (options.models or (QUICK if options.quick else ALL)).split(",")
    options.peers = options.peers.split(",")
    options.batches = [int(batch) for batch in (options.batches or ("1" if options.quick else "1,8")).split(",")]
    default_threads = str(min(2, cores)) if options.quick else ",".join(str(n) for n in (1, 2) if n <= cores)
    options.threads = [int(threads) for threads in (options.threads or default_threads).split(",")]
    if unknown := [name for name in options.models if name not in ALL.split(",")] + [name for name in options.peers if name not in PEERS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    return options


def tell(text):
    print(text, file=sys.stderr, flush=True)


def machine():
    cpu = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "memory_gb": memory}


def versions(peers):
    packages = sorted({package for peer in peers for package in PEERS[peer].packages})
    return {package: importlib.metadata.version(package) for package in packages}


def write_model(model, batch, folder):
    """Builds the network in a process of its own (models.write); the last line of its error when it fails."""
    code = "import sys, models; models.write(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, model, str(batch), folder], cwd=HERE, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if "Error" in line]
    return errors[-1] if errors else f"the process ended with status {done.returncode}"


def prepare(peers, folder, log):
    """Every peer's offline step, each in a process of its own: {peer: seconds} and {peer: error}. What a kept folder has is not made again."""
    seconds, failed = {}, {}
    for name in peers:
        kept = Path(folder) / f"prepared-{name}.json"
        if kept.exists() and name != "fusible":
            seconds[name] = json.loads(kept.read_text())
            continue
        racer = Racer(name, folder, len(os.sched_getaffinity(0)), log)
        try:
            seconds[name] = racer.ask("prepare", 900)["seconds"]
            kept.write_text(json.dumps(seconds[name]))
        except Failed as error:
            failed[name] = f"prepare: {error}"
        finally:
            racer.stop()
    return seconds, failed


@contextlib.contextmanager
def model_folder(kept, model, batch):
    """Where a network's files lie: a part of the folder `kept`, or one that goes with the race."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="race-") as folder:
            yield folder
    else:
        folder = Path(kept).resolve() / f"{model}-{batch}"
        folder.mkdir(parents=True, exist_ok=True)
        yield str(folder)


def error_against(reference, path):
    """max |y - reference| / max |reference| over the outputs of two .npz files."""
    import numpy as np

    expected, found = np.load(reference), np.load(path)
    if expected.files != found.files:
        raise Failed(f"outputs: needed {len(expected.files)} arrays, found {len(found.files)}")
    worst = 0.0
    for key in expected.files:
        if expected[key].shape != found[key].shape:
            raise Failed(f"outputs: needed shape {expected[key].shape}, found {found[key].shape}")
        scale = float(np.abs(expected[key]).max()) or 1.0
        worst = max(worst, float(np.abs(expected[key] - found[key]).max()) / scale)
    return worst


class Race:
    """One model at one batch size and thread count."""

    def __init__(self, folder, threads, options, prepared, failed, log):
        self.folder, self.threads, self.options, self.log = Path(folder), threads, options, log
        self.peers = {name: {"prepare_s": prepared[name]} if name in prepared else {"failed": failed[name]} for name in (*prepared, *failed)}
        self.racers = {}
        self.idle_cpu = self.turn_time = 0.0

    def attempt(self, name, action):
        """Runs action(racer, record); a peer that fails leaves the race with its error."""
        try:
            action(self.racers[name], self.peers[name])
        except Failed as error:
            self.peers[name] = {"failed": str(error)}
            self.racers.pop(name).stop()

    def start(self, racer, record):
        record.update(racer.ask("start", 900))
        record.update({"running_peak_mb": racer.ask("warm", 300, seconds=1.0)["running_peak_mb"], "rounds": []})
        path = self.folder / f"output-{racer.peer}-{self.threads}.npz"
        racer.ask("output", 300, path=str(path))
        reference = self.folder / f"output-eager-{self.threads}.npz"
        if reference.exists():
            record["error"] = error_against(reference, path)

    def turn(self, racer, record):
        time.sleep(0.05)  # spinning threads of the last peer come to rest
        others = [other for other in self.racers.values() if other is not racer]
        before, start = sum(other.cpu_seconds() for other in others), time.perf_counter()
        record["rounds"].append(round_figures(racer.ask("round", 300, seconds=self.options.seconds)["times"]))
        self.turn_time += time.perf_counter() - start
        self.idle_cpu += sum(other.cpu_seconds() for other in others) - before

    def run(self):
        try:
            for name in [name for name, record in self.peers.items() if "failed" not in record]:
                self.racers[name] = Racer(name, self.folder, self.threads, self.log)
                self.attempt(name, self.start)
            for index in range(self.options.rounds):
                order = list(self.racers)
                random.Random(index).shuffle(order)
                for name in order:
                    self.attempt(name, self.turn)
        finally:
            for racer in self.racers.values():
                racer.stop()
        return {"peers": self.peers, "idle_cpu_share": self.idle_cpu / self.turn_time if self.turn_time else 0.0}


def write(result, options):
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "race.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "race.md").write_text(markdown(result, options.base))
    (out / "race.svg").write_text(svg(result, options.base))


def main():
    options = arguments()
    missing = {
        name: {"missing": ", ".join(packages), "install": PEERS[name].install} for name in options.peers if (packages := PEERS[name].missing())
    }
    for name, reason in missing.items():
        tell(f"{name} does not race: {reason['missing']} not installed; {reason['install']}")
    peers = [name for name in options.peers if name not in missing]
    result = {
        "date": datetime.date.today().isoformat(), "machine": machine(), "versions": versions(peers), "peers": peers, "missing": missing,
        "rounds": options.rounds, "seconds": options.seconds, "not_built": {}, "races": [],
    }
    Path(options.out).mkdir(parents=True, exist_ok=True)
    log = Path(options.out) / "workers.log"
    for model in options.models:
        for batch in options.batches:
            with model_folder(options.prepared, model, batch) as folder:
                tell(f"{model}, batch {batch}: prepare")
                if not (Path(folder) / "traced.pt").exists() and (problem := write_model(model, batch, folder)):
                    result["not_built"][f"{model}, batch {batch}"] = problem
                    tell(f"{model}, batch {batch}: {problem}")
                    continue
                prepared, failed = prepare(peers, folder, log)
                for threads in options.threads:
                    start = time.perf_counter()
                    outcome = Race(folder, threads, options, prepared, failed, log).run()
                    result["races"].append({"model": model, "batch": batch, "threads": threads, **outcome})
                    tell(f"{model}, batch {batch}, threads {threads}: {time.perf_counter() - start:.0f} s")
                    write(result, options)
    print(markdown(result, options.base))
    if options.check and (lost := slower_than("freeze", result["races"])):
        tell("fusible is slower than freeze:\n  " + "\n  ".join(lost))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
