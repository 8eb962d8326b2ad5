#!/usr/bin/env python3
"""Prints the vectors of vectors.rs, by nothing but Python's own hashlib, hmac and integers.

The primes are those of RFC 7919, from their definition; the rest is NVM Express Base Specification 2.0c, section 8.13.5."""
import base64, hashlib, hmac, struct, zlib

HOST = b"nqn.2014-08.org.nvmexpress:uuid:6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f20"
SUB = b"nqn.2014-08.com.example:array"
C1, S1 = bytes(255 - i for i in range(64)), 0x01020304  # the controller's challenge
C2, S2, T = bytes(range(64)), 0x0A0B0C0D, 0x1234  # the host's, and the transaction
X, Y = (int.from_bytes(bytes(i * 7 % 251 + k for i in range(64)), "big") for k in (1, 2))  # exponents
HASHES = {"sha256": 1, "sha384": 2, "sha512": 3}


def e(bits):  # e times 2^bits, without its fraction, by its series with 200 bits more
    total, term, k = 0, 1 << bits + 200, 0
    while term:
        total, k = total + term, k + 1
        term //= k
    return total >> 200


def prime(bits):
    added = {2048: 560316, 3072: 2625351, 4096: 5736041, 6144: 15705020, 8192: 10965728}[bits]
    return 2**bits - 2 ** (bits - 64) + (e(bits - 130) + added) * 2**64 - 1


def key(kind, length, first):  # a secret's text, and what it is to its owner
    k = bytes(first + i for i in range(length))
    text = "DHHC-1:%02d:%s:" % (kind, base64.b64encode(k + struct.pack("<I", zlib.crc32(k))).decode())
    names = {i: name for name, i in HASHES.items()}
    return text, lambda owner: k if kind == 0 else hmac.digest(k, owner + b"NVMe-over-Fabrics", names[kind])


def vector(h, bits, host, ctrl):  # digest of the whole reply, and the controller's proof
    n, augmented, value = hashlib.new(h).digest_size, lambda c: c, b""
    if bits:
        value = pow(2, X, prime(bits)).to_bytes(bits // 8, "big")
        shared = pow(2, X * Y, prime(bits)).to_bytes(bits // 8, "big")
        augmented = lambda c: hmac.digest(hashlib.new(h, shared).digest(), c, h)
    said = lambda k, c, s, role, a, b: hmac.digest(
        k, augmented(c[:n]) + struct.pack("<IHB", s, T, 0) + role + a + b"\0" + b, h
    )
    response = said(host[1](HOST), C1, S1, b"HostHost", HOST, SUB)
    c2, s2, proof = bytes(n), 0, b""
    if ctrl:
        c2, s2, proof = C2[:n], S2, said(ctrl[1](SUB), C2, S2, b"Controller", SUB, HOST)
    head = struct.pack("<BBHHBBBBHI", 1, 2, 0, T, n, 0, bool(ctrl), 0, len(value), s2)
    return hashlib.sha256(head + response + c2 + value).hexdigest(), proof.hex()


for bits in (2048, 3072, 4096, 6144, 8192):
    print(bits, hashlib.sha256(prime(bits).to_bytes(bits // 8, "big")).hexdigest())
for h, bits, host, ctrl in [
    ("sha256", 0, key(0, 32, 0), None),
    ("sha256", 2048, key(1, 32, 0), key(0, 48, 9)),
    ("sha384", 3072, key(2, 48, 0), key(3, 64, 9)),
    ("sha512", 4096, key(3, 64, 0), key(1, 32, 9)),
    ("sha384", 6144, key(0, 64, 0), key(2, 48, 9)),
    ("sha512", 8192, key(1, 32, 0), key(1, 32, 9)),
]:
    print(h, bits, host[0], ctrl and ctrl[0], *vector(h, bits, host, ctrl))
