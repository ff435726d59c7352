"""The race's side of the worker processes: starts them, talks to one at a time, watches that the others sleep."""
import json
import os
import select
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A peer that could not go on; the text is its own error."""


class Racer:
    def __init__(self, peer, folder, threads, log):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.peer = peer
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), peer, str(folder), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment, cwd=str(folder),
        )

    def ask(self, do, timeout, **arguments):
        """The worker's answer to one command. Raises Failed with the peer's error, its exit status, or the time it was given."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"the process ended with status {self.process.wait()} before {do}") from None
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.stop()
            raise Failed(f"no answer to {do} within {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the process ended with status {self.process.wait()} during {do}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(" ".join(answer["error"].split())[:400])
        return answer

    def cpu_seconds(self):
        """Processor time of the process so far, all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()
