"""One peer in a process of its own: reads commands as JSON lines, answers as JSON lines, sleeps on the pipe in between.

    python worker.py PEER FOLDER THREADS
"""
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path


def own_channel():
    """The pipe to the race; libraries that print get stderr instead."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def memory_mb():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"now": int(fields["VmRSS"].split()[0]) / 1024, "peak": int(fields["VmHWM"].split()[0]) / 1024}


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


def arrays(value):
    import numpy as np

    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [array for item in value if item is not None for array in arrays(item)]
    return [np.asarray(value)]


class Worker:
    def __init__(self, peer, folder, threads):
        self.peer, self.folder, self.threads = peer, folder, threads
        self.call = None

    def prepare(self):
        start = time.perf_counter()
        self.peer.prepare(self.folder)
        return {"seconds": time.perf_counter() - start}

    def start(self):
        for package in self.peer.packages:
            __import__(package)
        before = memory_mb()["now"]
        start = time.perf_counter()
        self.call = self.peer.load(self.folder, self.threads)
        self.call()
        return {"first_result_s": time.perf_counter() - start, "imported_mb": before, "peak_mb": memory_mb()["peak"]}

    def warm(self, seconds):
        """Calls until optimisers and executors have settled, then measures the memory of running."""
        start, calls = time.perf_counter(), 0
        while calls < 4 or time.perf_counter() - start < seconds:
            self.call()
            calls += 1
        forget_peak()
        self.call()
        return {"calls": calls, "running_peak_mb": memory_mb()["peak"]}

    def round(self, seconds):
        """Two calls to refill the caches that another peer used, then timed calls for `seconds`, three at least."""
        self.call()
        self.call()
        times, start = [], time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < seconds:
            before = time.perf_counter()
            self.call()
            times.append(time.perf_counter() - before)
        return {"times": times}

    def output(self, path):
        import numpy as np

        np.savez(path, *arrays(self.call()))
        return {}


def main():
    channel = own_channel()
    warnings.simplefilter("ignore")
    from peers import PEERS

    worker = Worker(PEERS[sys.argv[1]], sys.argv[2], int(sys.argv[3]))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
