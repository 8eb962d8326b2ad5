#!/usr/bin/env python3
"""bench.py - measures roadsteadd on this machine and writes docs/benchmarks.md.

  bench.py [--rounds N] [--seconds S] [--only SUBSTRING] [--cluster-json FILE] [--out FILE]

roadsteadd has core 0, the load generator core 1, both on loopback. Every round runs each row once, and the machine's
own limit (a pair of threads that exchange the same bytes, no NVMe) beside it, so that both see the same machine; the
table has medians over the rounds and the spread. The programs are built with `cargo build --release` before.
"""
import argparse, json, os, platform, re, signal, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get('CARGO_TARGET_DIR', ROOT / 'target')) / 'release'
PORT, METRICS, NQN = 15420, 15421, 'nqn.2026-11.io.roadstead:bench'
CLK = os.sysconf('SC_CLK_TCK')

# name, arguments of roadstead-bench, drive, row of the ping-pong to compare with, goal in IOPS
ROWS = [
    ('4K random read q1', '--rw randread -q 1', 'memory', '4K read q1', None),
    ('4K random read q32', '--rw randread -q 32', 'memory', '4K read q32', 200_000),
    ('4K random read q128', '--rw randread -q 128', 'memory', '4K read q128', None),
    ('4K random write q32', '--rw randwrite -q 32', 'memory', '4K write q32', None),
    ('4K random write q128', '--rw randwrite -q 128', 'memory', '4K write q128', None),
    ('4K mixed 70/30 q32', '--rw randrw --mix 70 -q 32', 'memory', None, None),
    ('128K read q32', '--rw read -q 32 --block-size 128k', 'memory', '128K read q32', None),
    ('128K write q32', '--rw write -q 32 --block-size 128k', 'memory', '128K write q32', None),
    ('4K random read q1, file', '--rw randread -q 1', 'file', None, None),
    ('4K random read q32, file', '--rw randread -q 32', 'file', None, None),
]


def cpu_seconds(pid):
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLK


def resident_mib(pid):
    return int(re.search(r'VmRSS:\s+(\d+)', Path(f'/proc/{pid}/status').read_text()).group(1)) / 1024


class Daemon:
    """A stand-alone roadsteadd with one namespace of 512 MiB."""

    def __init__(self, directory, drive):
        source = 'memory: {size: 768MiB}' if drive == 'memory' else f'file: {{path: {directory}/drive, size: 768MiB}}'
        config = Path(directory) / 'roadsteadd.yaml'
        config.write_text(f"""
reactors: 1
stateDir: {directory}/state
socket: {directory}/roadsteadd.sock
metricsListen: 127.0.0.1:{METRICS}
portals: [{{address: 127.0.0.1, port: {PORT}}}]
drives:
  - {{name: d, {source}}}
subsystems:
  - nqn: {NQN}
    allowAnyHost: true
    namespaces: [{{name: v, drive: d, size: 512MiB}}]
""")
        self.log = open(Path(directory) / 'log', 'w')
        self.process = subprocess.Popen(['taskset', '-c', '0', TARGET / 'roadsteadd', '--config', config],
                                        stdout=self.log, stderr=self.log)
        self.pid = self.process.pid

    def __enter__(self):
        end = time.monotonic() + 20
        while load('--rw read -q 1', 0.1, check=False) is None:
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit(f'bench: roadsteadd does not serve:\n{Path(self.log.name).read_text()}')
            time.sleep(0.1)
        load('--rw write -q 32 --block-size 128k --verify', 3)  # every block exists, and every one is right
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def load(arguments, seconds, check=True):
    command = [TARGET / 'roadstead', 'bench', '-c', f'127.0.0.1:{PORT}', '-n', NQN, '--cores', '1', '-o', 'json',
               '-T', str(seconds), '--ctrl-loss', '1', *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        if check:
            sys.exit(f'bench: {" ".join(map(str, command))}\n{done.stdout}{done.stderr}')
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def raw_limits(pingpong, rows, seconds):
    """One round of the ping-pong: row -> (hand-written loop, our reactor), per second."""
    out = subprocess.run([pingpong, '--bench', '--rounds', '1', '--seconds', str(max(1, round(seconds / 2)))],
                         capture_output=True, text=True, check=True).stdout
    found = {}
    for line in out.splitlines():
        m = re.match(r'(.+?)\s{2,}(\d+)\s+(\d+)\s', line)
        if m and m.group(1).strip() in rows:
            found[m.group(1).strip()] = (float(m.group(2)), float(m.group(3)))
    return found


def measure_idle(daemon, seconds):
    """CPU share of one core and resident memory, while 100 connections are open and nothing happens."""
    import socket
    ic_req = bytes([0, 0, 128, 0]) + (128).to_bytes(4, 'little') + bytes(120)
    sockets = [socket.create_connection(('127.0.0.1', PORT)) for _ in range(100)]
    for s in sockets:
        s.sendall(ic_req)
        if len(s.recv(128, socket.MSG_WAITALL)) != 128:
            sys.exit('bench: no ICResp')
    time.sleep(1)
    before, t0 = cpu_seconds(daemon.pid), time.monotonic()
    time.sleep(seconds)
    share = (cpu_seconds(daemon.pid) - before) / (time.monotonic() - t0)
    for s in sockets:
        s.close()
    return 100 * share, resident_mib(daemon.pid)


def build():
    env = dict(os.environ)
    subprocess.run(['cargo', 'build', '--locked', '--release', '-p', 'roadsteadd', '-p', 'roadstead', '--bins'],
                   cwd=ROOT, check=True, env=env)
    out = subprocess.run(['cargo', 'bench', '--locked', '-p', 'roadstead-ring', '--bench', 'pingpong', '--no-run',
                          '--message-format', 'json'], cwd=ROOT, check=True, env=env, capture_output=True, text=True).stdout
    paths = [json.loads(line).get('executable') for line in out.splitlines() if line.startswith('{')]
    return [p for p in paths if p][-1]


def machine():
    cpu = re.search(r'model name\s*:\s*(.*)', Path('/proc/cpuinfo').read_text())
    memory = int(re.search(r'MemTotal:\s+(\d+)', Path('/proc/meminfo').read_text()).group(1)) / 1048576
    return f'{os.cpu_count()} cores ({cpu.group(1) if cpu else "?"}), {memory:.0f} GiB, Linux {platform.release()}'


def spread(values):
    m = statistics.median(values)
    return f'±{100 * (max(values) - min(values)) / 2 / m:.0f} %' if m else ''


def table(results, raw, rows, file):
    print('| row | IOPS | MiB/s | mean us | p99 us | target CPU | spread | raw limit | of it | goal |', file=file)
    print('|---|---|---|---|---|---|---|---|---|---|', file=file)
    met = True
    for name, _, _, compare, goal in rows:
        runs = results[name]
        iops = statistics.median(r['iops'] for r in runs)
        of = lambda k: statistics.median(max((r[d] or {}).get(k, 0) for d in ('read', 'write')) for r in runs)
        limit = statistics.median(r[0] for r in raw[compare]) if raw.get(compare) else None
        verdict = '' if goal is None else f'{goal // 1000} k {"met" if iops >= goal else "MISSED"}'
        met &= goal is None or iops >= goal
        print(f'| {name} | {iops / 1000:.1f} k | {statistics.median(r["mib_per_s"] for r in runs):.0f} | {of("mean_us"):.1f} '
              f'| {of("p99_us"):.0f} | {statistics.median(r["cpu"] for r in runs):.0f} % | {spread([r["iops"] for r in runs])} '
              f'| {f"{limit / 1000:.0f} k" if limit else ""} | {f"{100 * iops / limit:.0f} %" if limit else ""} | {verdict} |',
              file=file)
    return met


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--seconds', type=float, default=2)
    p.add_argument('--only', default='')
    p.add_argument('--cluster-json', help='times of PVC to running pod, written by the scenario speed')
    p.add_argument('--out', default=ROOT / 'docs/benchmarks.md')
    a = p.parse_args()
    rows = [r for r in ROWS if a.only in r[0]]
    pingpong = build()
    results, raw = {r[0]: [] for r in rows}, {}
    idle = None
    for drive in ('memory', 'file'):
        mine = [r for r in rows if r[2] == drive]
        if not mine:
            continue
        with tempfile.TemporaryDirectory() as directory, Daemon(directory, drive) as daemon:
            for n in range(a.rounds):
                for name, arguments, *_ in mine:
                    before, t0 = cpu_seconds(daemon.pid), time.monotonic()
                    result = load(arguments, a.seconds)
                    result['cpu'] = 100 * (cpu_seconds(daemon.pid) - before) / (time.monotonic() - t0)
                    results[name].append(result)
                    print(f'round {n + 1}/{a.rounds}  {name}: {result["iops"]:.0f} IOPS', file=sys.stderr, flush=True)
                if drive == 'memory':
                    for name, pair in raw_limits(pingpong, {r[3] for r in rows}, a.seconds).items():
                        raw.setdefault(name, []).append(pair)
            if drive == 'memory':
                idle = measure_idle(daemon, 10)
    with open(a.out, 'w') as f:
        print(f"""# Benchmarks

Written by `make bench` on {machine()}. Target on core 0, load generator (`roadstead bench`) on core 1, loopback, one
connection, release build. Medians of {a.rounds} rounds of {a.seconds:g} s; in each round every row runs once, and the raw limit
beside it: two threads that exchange the same bytes without NVMe (`cargo bench -p roadstead-ring`). Absolute figures of
different runs cannot be compared: such machines are shared. "file" is a file on the machine's disk with direct I/O.
Data was verified in a run of its own before. Load average at the end, with about 2 of it from the benchmark itself:
{os.getloadavg()[0]:.1f}.
""", file=f)
        met = table(results, raw, rows, f)
        if idle:
            cpu, rss = idle
            met &= cpu < 0.5
            print(f"""
| what | measured | goal |
|---|---|---|
| CPU of roadsteadd with 100 idle connections, of one core | {cpu:.2f} % | < 0.5 % {"met" if cpu < 0.5 else "MISSED"} |
| resident memory of roadsteadd then, its memory drive of 768 MiB included | {rss:.0f} MiB | |""", file=f)
        if a.cluster_json and os.path.exists(a.cluster_json):
            c = json.load(open(a.cluster_json))
            total, own = statistics.median(c['total_s']), statistics.median(c['own_s'])
            met &= total < 15 and own < 2
            print(f"""| PVC created to pod running, warm three-node cluster, median of {len(c['total_s'])} | {total:.1f} s | < 15 s {"met" if total < 15 else "MISSED"} |
| of which Roadstead's own calls (create, publish, stage, publish on the node) | {own:.2f} s | < 2 s {"met" if own < 2 else "MISSED"} |""", file=f)
    print(open(a.out).read())
    sys.exit(0 if met else 1)


main()
