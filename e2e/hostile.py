#!/usr/bin/env python3
"""hostile.py ADDRESS PORT - sends rubbish to an NVMe/TCP port and checks that every such connection is ended by the target.

A connection that breaks the rules must be closed (after a terminate request, or without one) within CLOSE_S seconds; one that
only keeps silent may stay, up to the target's own time-out. Nothing here depends on the target's implementation.
"""
import os, random, socket, struct, sys, time

ADDRESS, PORT = sys.argv[1], int(sys.argv[2])
CLOSE_S = 15
SEED = int(os.environ.get('SEED', time.time_ns() % 1_000_000))
rng = random.Random(SEED)

# Common header: type, flags, header length, data offset, PDU length (NVMe/TCP transport specification, 3.6.1)
def header(kind, flags, hlen, pdo, plen):
    return struct.pack('<BBBBI', kind, flags, hlen, pdo, plen)

ICREQ = header(0x00, 0, 128, 0, 128) + struct.pack('<HBBI', 0, 0, 0, 0) + bytes(112)
CONNECT_SQE = struct.pack('<BBHB', 0x7f, 0x40, 1, 0x01) + bytes(59)

def connect():
    s = socket.create_connection((ADDRESS, PORT), timeout=CLOSE_S)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s

def send(s, data):
    try:
        s.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was closed while we were sending: fine

def closed(s):
    """Whether the other side ends the connection in time; what it says before that is read and dropped."""
    s.settimeout(CLOSE_S)
    try:
        while s.recv(65536):
            pass
        return True
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False

def after_icreq(data):
    """Rubbish in place of a command, on a connection that was set up well."""
    def run(s):
        send(s, ICREQ)
        s.recv(128)
        send(s, data)
    return run

def at_once(data):
    return lambda s: send(s, data)

CASES = {
    'unknown type first': at_once(header(0x77, 0, 24, 0, 24) + bytes(16)),
    'command before ICReq': at_once(header(0x04, 0, 72, 0, 72) + CONNECT_SQE),
    'ICReq with wrong header length': at_once(header(0x00, 0, 64, 0, 128) + bytes(120)),
    'ICReq with wrong PDU length': at_once(header(0x00, 0, 128, 0, 0xffffffff) + bytes(120)),
    'ICReq with unknown format version': at_once(header(0x00, 0, 128, 0, 128) + struct.pack('<H', 77) + bytes(118)),
    'ICReq twice': after_icreq(ICREQ),
    'PDU shorter than its header': after_icreq(header(0x04, 0, 72, 0, 8)),
    'PDU of 4 GiB': after_icreq(header(0x04, 0, 72, 72, 0xffffffff) + CONNECT_SQE),
    'PDU length 0': after_icreq(header(0x04, 0, 72, 0, 0) + bytes(64)),
    'header length 0': after_icreq(header(0x04, 0, 0, 0, 72) + bytes(64)),
    'header length 255': after_icreq(header(0x04, 0, 255, 0, 255) + bytes(247)),
    'data offset beyond the PDU': after_icreq(header(0x04, 0, 72, 200, 80) + CONNECT_SQE + bytes(8)),
    'unknown type': after_icreq(header(0x66, 0, 72, 0, 72) + bytes(64)),
    'a PDU that only targets send': after_icreq(header(0x05, 0, 24, 0, 24) + bytes(16)),
    'data that nobody asked for': after_icreq(header(0x06, 0x04, 24, 24, 24 + 512) + bytes(16) + bytes(512)),
    'terminate request': after_icreq(header(0x02, 0, 24, 0, 24) + bytes(16)),
}
for n in range(40):
    CASES[f'random bytes {n}'] = at_once(rng.randbytes(rng.randint(128, 4096)))
    # Types 0x0a and up are unknown; lengths are random.
    CASES[f'random PDU {n}'] = after_icreq(
        header(rng.choice([0x0a, 0x33, 0xff, 0x01, 0x05, 0x07, 0x09]), rng.randrange(256), rng.randrange(256), rng.randrange(256),
               rng.randrange(1 << 32)) + rng.randbytes(rng.randint(64, 8192)))

print(f'seed {SEED}')
bad = 0
for name, run in CASES.items():
    with connect() as s:
        try:
            run(s)
        except (ConnectionResetError, BrokenPipeError):
            continue
        if not closed(s):
            bad += 1
            print(f'still open after {CLOSE_S} s: {name}')

# Half PDUs: cut anywhere, then closed by us; and many connections that say nothing, all at once.
good = ICREQ + header(0x04, 0, 72, 0, 72) + CONNECT_SQE
for cut in range(1, len(good), 7):
    with connect() as s:
        send(s, good[:cut])
silent = [connect() for _ in range(200)]
for s in silent:
    send(s, ICREQ[:rng.randrange(len(ICREQ))])
with connect() as s:  # and the port still answers
    send(s, ICREQ)
    answer = s.recv(128)
    if len(answer) < 8 or answer[0] != 0x01:
        bad += 1
        print(f'no ICResp after all this: {answer!r}')
for s in silent:
    s.close()
print(f'{len(CASES)} cases, {bad} bad')
sys.exit(bad > 0)
