"""Several processes of one model at the same time on the same cores, as a host with an instance per client has them: calls per second of all of them.

    python bench/crowd.py --models mobilenet_v2,resnet18                     3 processes of 2 threads each
    python bench/crowd.py --models lstm --processes 2 --peers freeze,fusible

Peers take turns, round by round; the others sleep. Prints a Markdown table: median [least, most] over the rounds, and the ratio to the first peer.
"""
import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from peers import PEERS
from race import model_folder, prepare, write_model
from racers import Failed, Racer


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="mobilenet_v2,resnet18", help="default: %(default)s")
    parser.add_argument("--peers", default="freeze,onnxruntime,openvino,fusible", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="of each process; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2, help="of a turn; default: %(default)s")
    parser.add_argument("--prepared", help="folder in which networks and peers' files are kept, that of race.py")
    options = parser.parse_args()
    options.models, options.peers = options.models.split(","), options.peers.split(",")
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def calls_per_second(crowd, seconds):
    """All at once. A process is asked from a thread of its own: their turns begin together, and end about together."""
    with ThreadPoolExecutor(len(crowd)) as pool:
        answers = list(pool.map(lambda racer: racer.ask("round", 60 + 20 * seconds, seconds=seconds), crowd))
    return sum(len(answer["times"]) / sum(answer["times"]) for answer in answers)


def crowds_of(options, peers, folder, log):
    crowds = {}
    for peer in peers:
        racers = [Racer(peer, folder, options.threads, log) for _ in range(options.processes)]
        try:
            for racer in racers:
                racer.ask("start", 300)
                racer.ask("warm", 300, seconds=0.5)
            crowds[peer] = racers
        except Failed as error:
            print(f"{peer}: {error}", file=sys.stderr)
            for racer in racers:
                racer.stop()
    return crowds


def race(options, model, folder):
    log = Path(folder) / "crowd.log"
    if not (Path(folder) / "traced.pt").exists() and (problem := write_model(model, options.batch, folder)):
        sys.exit(f"{model}: {problem}")
    _, failed = prepare(options.peers, folder, log)
    for peer, error in failed.items():
        print(f"{peer}: {error}", file=sys.stderr)
    crowds = crowds_of(options, [peer for peer in options.peers if peer not in failed], folder, log)
    try:
        figures = {peer: [] for peer in crowds}
        for _ in range(options.rounds):
            for peer, crowd in crowds.items():
                time.sleep(0.05)  # threads that spin come to rest
                figures[peer].append(calls_per_second(crowd, options.seconds))
        return figures
    finally:
        for crowd in crowds.values():
            for racer in crowd:
                racer.stop()


def main():
    options = arguments()
    print(f"| model | {' | '.join(options.peers)} |\n|---|{'---|' * len(options.peers)}")
    for model in options.models:
        with model_folder(options.prepared, model, options.batch) as folder:
            figures = race(options, model, folder)
        cells, base = [], None
        for peer in options.peers:
            if not (found := figures.get(peer)):
                cells.append("-")
                continue
            base = base or found
            ratio = statistics.median(one / other for one, other in zip(found, base, strict=True))
            cells.append(f"{statistics.median(found):.1f} [{min(found):.1f}, {max(found):.1f}], {ratio:.2f}x")
        print(f"| {model} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
