#!/usr/bin/env python3
"""bench.py - measures roadsteadd on this machine and writes docs/benchmarks.md.

  bench.py [--rounds N] [--seconds S] [--only SUBSTRING] [--cluster-json FILE] [--out FILE]

roadsteadd has core 0, the load generator core 1, both on loopback. Every round runs each row once, and the machine's
own limit (a pair of threads that exchange the same bytes, no NVMe) beside it, so that both see the same machine; the
table has medians over the rounds and the spread. The programs are built with `cargo build --release` before.
"""
import argparse, json, os, platform, re, signal, statistics, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get('CARGO_TARGET_DIR', ROOT / 'target')) / 'release'
RAMP = 0.5
PORT, METRICS, NQN = 15420, 15421, 'nqn.2026-11.io.roadstead:bench'
CLK = os.sysconf('SC_CLK_TCK')

# name, arguments of `roadstead bench`, drive, row of the ping-pong to compare with, goal in percent of that raw limit: what
# SPDK 26.05 with its own load generator reached of the raw limit of the same machine in the same way.
SMALL = '--nsid 2'  # the namespace that fits the processor's caches
IOPS_MIN = {'4K random read q32': 200_000}  # less fails the run
ROWS = [
    ('4K random read q1', '--rw randread -q 1', 'memory', '4K read q1 from DRAM', 86),
    ('4K random read q32', '--rw randread -q 32', 'memory', '4K read q32 from DRAM', 84),
    ('4K random read q128', '--rw randread -q 128', 'memory', '4K read q128 from DRAM', 68),
    ('4K random read q1, in cache', f'--rw randread -q 1 {SMALL}', 'memory', '4K read q1', 86),
    ('4K random read q32, in cache', f'--rw randread -q 32 {SMALL}', 'memory', '4K read q32', 84),
    ('4K random read q128, in cache', f'--rw randread -q 128 {SMALL}', 'memory', '4K read q128', 68),
    ('4K random write q32', '--rw randwrite -q 32', 'memory', '4K write q32', 46),
    ('4K random write q128', '--rw randwrite -q 128', 'memory', '4K write q128', 41),
    ('4K mixed 70/30 q32', '--rw randrw --mix 70 -q 32', 'memory', None, None),
    ('128K read q32', '--rw read -q 32 --block-size 128k', 'memory', '128K read q32', 67),
    ('128K write q32', '--rw write -q 32 --block-size 128k', 'memory', '128K write q32', 60),
    ('4K random read q1, file', '--rw randread -q 1', 'file', None, None),
    ('4K random read q32, file', '--rw randread -q 32', 'file', None, None),
]


def cpu_seconds(pid):
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLK


def resident_mib(pid):
    return int(re.search(r'VmRSS:\s+(\d+)', Path(f'/proc/{pid}/status').read_text()).group(1)) / 1024


class Daemon:
    """A stand-alone roadsteadd with one namespace of 512 MiB and one that fits the processor's caches."""

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
    namespaces: [{{name: v, drive: d, size: 512MiB}}, {{name: small, drive: d, size: 8MiB}}]
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
        for namespace in ('--nsid 1', SMALL):
            load(f'--rw write -q 32 --block-size 128k --verify {namespace}', 3)  # every block exists, and every one is right
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
               '-T', str(seconds), '--ramp', str(RAMP), '--ctrl-loss', '1', *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        if check:
            sys.exit(f'bench: {" ".join(map(str, command))}\n{done.stdout}{done.stderr}')
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def raw_limits(pingpong, rows, seconds):
    """One round of the ping-pong: row -> answers of the hand-written loop per second."""
    out = subprocess.run([pingpong, '--bench', '--rounds', '1', '--seconds', str(max(1, round(seconds / 2)))],
                         capture_output=True, text=True, check=True).stdout
    found = {}
    for line in out.splitlines():
        m = re.match(r'(.+?)\s{2,}(\d+)', line)
        if m and m.group(1) in rows:
            found[m.group(1)] = float(m.group(2))
    return found


def syscalls():
    """System calls of the reactor so far, from the daemon's metrics."""
    text = urllib.request.urlopen(f'http://127.0.0.1:{METRICS}/metrics', timeout=10).read().decode()
    return sum(float(line.rsplit(' ', 1)[1]) for line in text.splitlines() if line.startswith('roadstead_reactor_syscalls_total{'))


IC_REQ = bytes([0, 0, 128, 0]) + (128).to_bytes(4, 'little') + bytes(120)
# Connect of an admin queue: the command, and its data in the capsule. Keep alive time-out 0: the connection may be idle.
SQE = (bytes([0x7f, 0x40, 0, 0, 1]) + bytes(19) + bytes(8) + (1024).to_bytes(4, 'little') + bytes([0, 0, 0, 1])
       + bytes(4) + (31).to_bytes(2, 'little') + bytes(18))


def connect_data(number):
    host = f'nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-{number:012}'
    return (number.to_bytes(16, 'little') + b'\xff\xff' + bytes(238)
            + NQN.encode().ljust(256, b'\0') + host.encode().ljust(256, b'\0') + bytes(256))


def connect_hosts(count):
    """So many hosts, each with a controller of its own."""
    import socket
    hosts = []
    for number in range(1, count + 1):
        s = socket.create_connection(('127.0.0.1', PORT))
        capsule = bytes([4, 0, 72, 72]) + (72 + 1024).to_bytes(4, 'little') + SQE + connect_data(number)
        s.sendall(IC_REQ)
        if len(s.recv(128, socket.MSG_WAITALL)) != 128:
            sys.exit('bench: no ICResp')
        s.sendall(capsule)
        response = s.recv(24, socket.MSG_WAITALL)
        if len(response) != 24 or response[22] >> 1 | response[23] << 7:
            sys.exit(f'bench: host {number} is refused: {response.hex()}')
        hosts.append(s)
    return hosts


def measure_idle(daemon, seconds):
    """CPU share of one core with 1,000 connections, KiB that each of 9,000 more takes, resident MiB with 10,000."""
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, max(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    hosts = connect_hosts(1000)
    time.sleep(3)
    before, t0 = cpu_seconds(daemon.pid), time.monotonic()
    time.sleep(seconds)
    share = (cpu_seconds(daemon.pid) - before) / (time.monotonic() - t0)
    for s in hosts:
        s.close()
    time.sleep(1)
    few = resident_mib(daemon.pid)
    hosts = connect_hosts(10_000)
    many = resident_mib(daemon.pid)
    result = load('--rw randread -q 32', 1)  # it still serves
    for s in hosts:
        s.close()
    return 100 * share, (many - few) * 1024 / 10_000, many, result['iops']


def beside_nvmet(rounds):
    """The same loads on the kernel's target in a virtual machine: row -> our IOPS over its, a round each."""
    command = [ROOT / 'e2e/vm.sh', '-c', '2', '-m', '1536', '-t', '300', '-a', ROOT / 'e2e/guest/lib.sh',
               '-a', TARGET / 'roadstead', '-a', TARGET / 'roadsteadd', ROOT / 'e2e/guest/bench-nvmet.sh', str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f'bench: the virtual machine with nvmet failed:\n{done.stdout}{done.stderr}')
    ratios = {}
    for line in done.stdout.splitlines():
        if line.startswith('row '):
            _, name, ours, theirs = line.split()
            ratios.setdefault(name.replace('_', ' '), []).append(float(ours) / float(theirs))
    return ratios


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
    print('| row | IOPS | MiB/s | mean us | p99 us | target CPU | syscalls per I/O | spread | raw limit | of it | goal |', file=file)
    print('|---|---|---|---|---|---|---|---|---|---|---|', file=file)
    met = True
    for name, _, _, compare, goal in rows:
        runs = results[name]
        iops = statistics.median(r['iops'] for r in runs)
        of = lambda k: statistics.median(max((r[d] or {}).get(k, 0) for d in ('read', 'write')) for r in runs)
        limit = statistics.median(raw[compare]) if raw.get(compare) else None
        share = 100 * iops / limit if limit else None
        verdict = '' if goal is None or share is None else f'{goal} % {"met" if share >= goal else "MISSED"}'
        if name in IOPS_MIN:
            enough = iops >= IOPS_MIN[name]
            met &= enough
            verdict += f', {IOPS_MIN[name] // 1000} k {"met" if enough else "MISSED"}'
        print(f'| {name} | {iops / 1000:.1f} k | {statistics.median(r["mib_per_s"] for r in runs):.0f} | {of("mean_us"):.1f} '
              f'| {of("p99_us"):.0f} | {statistics.median(r["cpu"] for r in runs):.0f} % | {statistics.median(r["syscalls"] for r in runs):.3f} | {spread([r["iops"] for r in runs])} '
              f'| {f"{limit / 1000:.0f} k" if limit else ""} | {f"{share:.0f} %" if limit else ""} | {verdict} |',
              file=file)
    return met


def roce_table(costs, file):
    print('''
NVMe/RDMA over the soft device between two virtual machines, ours beside nvmet: what the target does for one I/O. "Work requests" are
those of send queues, "batches" how they are handed to the device, "system calls" the daemon's (the soft device needs one for a
batch; hardware needs none). The CPU time is the whole machine's, the soft device's included, in a run without counting; only its ratio
means anything.

| load | work requests | of nvmet | batches | of nvmet | system calls | CPU of ours / nvmet |
|---|---|---|---|---|---|---|''', file=file)
    loads = {}
    for cost in costs:
        loads.setdefault(cost['load'], {})[cost['side']] = cost
    for name, sides in loads.items():
        ours, theirs = sides['ours'], sides['nvmet']
        print(f'| {name} | {ours["requests"]:.2f} | {theirs["requests"]:.2f} | {ours["doorbells"]:.2f} | {theirs["doorbells"]:.2f} '
              f'| {ours["syscalls"]:.2f} | {ours["cpu_us"] / theirs["cpu_us"]:.2f} |', file=file)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--seconds', type=float, default=2)
    p.add_argument('--only', default='')
    p.add_argument('--cluster-json', help='times of PVC to running pod, written by the scenario speed')
    p.add_argument('--roce-json', help='what an I/O over RoCE costs, written by the scenario roce-cost')
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
                    calls = syscalls()
                    result = load(arguments, a.seconds)
                    ios = sum((result[d] or {}).get('count', 0) for d in ('read', 'write'))
                    # The ramp's requests are not in the count: the calls of its time are taken off.
                    result['syscalls'] = (syscalls() - calls) * a.seconds / (a.seconds + RAMP) / max(ios, 1)
                    result['cpu'] = 100 * (cpu_seconds(daemon.pid) - before) / (time.monotonic() - t0)
                    results[name].append(result)
                    print(f'round {n + 1}/{a.rounds}  {name}: {result["iops"]:.0f} IOPS', file=sys.stderr, flush=True)
                if drive == 'memory':
                    for name, rate in raw_limits(pingpong, {r[3] for r in rows}, a.seconds).items():
                        raw.setdefault(name, []).append(rate)
            if drive == 'memory':
                idle = measure_idle(daemon, 10)
    ratios = beside_nvmet(3) if not a.only else {}
    with open(a.out, 'w') as f:
        print(f"""# Benchmarks

Written by `make bench` on {machine()}. Target on core 0, load generator (`roadstead bench`) on core 1, loopback, one
connection, release build. Medians of {a.rounds} rounds of {a.seconds:g} s; in each round every row runs once, and the raw limit
beside it: two threads that exchange the same bytes without NVMe (`cargo bench -p roadstead-ring`). Absolute figures of
different runs cannot be compared: such machines are shared. A goal is the share of the raw limit that SPDK 26.05 reached on
such a machine. Reads are anywhere in 512 MiB, beside a raw limit that takes its bytes from as much memory; rows "in cache" are
within 8 MiB, beside one that sends the same bytes always. "file" is a file on the machine's disk with direct I/O.
Data was verified in a run of its own before. Load average at the end, with about 2 of it from the benchmark itself:
{os.getloadavg()[0]:.1f}.
""", file=f)
        met = table(results, raw, rows, f)
        if idle:
            cpu, each, rss, iops = idle
            met &= cpu < 0.5 and each < 64
            print(f"""
| what | measured | goal |
|---|---|---|
| CPU of roadsteadd with 1,000 idle hosts, of one core | {cpu:.2f} % | <= 0.1 % {"met" if cpu <= 0.1 else "MISSED"} |
| memory of one idle host, with 10,000 connected | {each:.1f} KiB | < 64 KiB {"met" if each < 64 else "MISSED"} |
| 4K random read q32 while those 10,000 are connected | {iops / 1000:.0f} k IOPS | |
| resident memory of roadsteadd then, its memory drive of 768 MiB included | {rss:.0f} MiB | |""", file=f)
        if a.cluster_json and os.path.exists(a.cluster_json):
            c = json.load(open(a.cluster_json))
            total, own = statistics.median(c['total_s']), statistics.median(c['own_s'])
            met &= total < 15 and own < 2
            print(f"""| PVC created to pod running, warm three-node cluster, median of {len(c['total_s'])} | {total:.1f} s | < 15 s {"met" if total < 15 else "MISSED"} |
| of which Roadstead's own calls (create, publish, stage, publish on the node) | {own:.2f} s | < 2 s {"met" if own < 2 else "MISSED"} |""", file=f)
        if ratios:
            print('''
Beside the kernel's own target (nvmet, on a file in RAM) in one virtual machine, the same load generator on both, in turn.
The machine is emulated: its absolute figures mean nothing, and are left out.

| row | IOPS of ours / nvmet | spread |
|---|---|---|''', file=f)
            for name, values in ratios.items():
                print(f'| {name} | {statistics.median(values):.2f} | {spread(values)} |', file=f)
        if a.roce_json and os.path.exists(a.roce_json):
            roce_table(json.load(open(a.roce_json)), f)
    print(open(a.out).read())
    sys.exit(0 if met else 1)


main()
