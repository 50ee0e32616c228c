"""Memory that two workers of one host share, for the hidden states of one link: slots of any size, in the order of the stream.

The sender makes it, without a name in any folder, and offers it with the stream: its process, the number of its descriptor, and a secret.
Whoever can open that and finds the secret in it is on the same host and of the same user, and says so in it. Nobody else answers, and
then everything travels by the stream. Its size is sealed, so no process can take memory away from under the other.

A slot is written again once its reader has it. Nothing here waits or computes: `outlet` writes, `inlet` reads.

Layout, little-endian: the secret; then two int64, whether somebody reads and the last sequence that was read; then NUM_SLOTS headers;
from DATA_START on the bytes. A header has one word of 8 bytes, which is written last and at once: the slot's mark (uint32, never 0) and
the largest magnitude in it (float32; infinite or no number if any is); then, for steps whose sender did not wait for them, two float64,
written later: the seconds that they were computed, and when that ended by the host's monotonic clock (0: not told yet).
"""

from __future__ import annotations

import contextlib
import hmac
import math
import mmap
import os
import secrets
import stat
import struct
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SECRET_BYTES = 32
NUM_SLOTS = 32
HEADER_BYTES = 64
HEADERS_START = 64
DATA_START = 4096
ALIGNMENT = 256
MAX_RING_BYTES = 2**30


class Memory:
    """The mapping, as arrays. `pin` lets a GPU copy from and to it without the host."""

    def __init__(self, descriptor: int, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._map = mmap.mmap(descriptor, num_bytes)
        self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)
        numbers = self._bytes[:DATA_START].numpy()
        self.state = numbers[SECRET_BYTES : SECRET_BYTES + 16].view(np.int64)  # is read, last sequence read
        headers = self._bytes[HEADERS_START : HEADERS_START + NUM_SLOTS * HEADER_BYTES].view(NUM_SLOTS, HEADER_BYTES)
        self.words = headers[:, :8].view(torch.int32)  # [NUM_SLOTS, 2]: for copies by a device
        self.marks = headers.numpy().view(np.uint64)[:, 0]  # [NUM_SLOTS]: the same words
        self.times = headers.numpy().view(np.float64)[:, 1:3]  # [NUM_SLOTS, 2]
        self._pinned_at = 0

    @property
    def secret(self) -> bytes:
        return bytes(self._bytes[:SECRET_BYTES].numpy())

    def write_secret(self, secret: bytes) -> None:
        self._bytes[:SECRET_BYTES] = torch.tensor(list(secret), dtype=torch.uint8)

    def data(self, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A view of the bytes from `start` on."""
        return torch.frombuffer(self._map, dtype=dtype, count=math.prod(shape), offset=DATA_START + start).view(shape)

    def pin(self) -> bool:
        """False if the driver will not; call with the device as the thread's current one."""
        if not self._pinned_at:
            runtime: Any = torch.cuda.cudart()
            if int(runtime.cudaHostRegister(self._bytes.data_ptr(), self.num_bytes, 1)) != 0:
                return False
            self._pinned_at = self._bytes.data_ptr()
        return True

    def unpin(self) -> None:
        """Once no copy is under way."""
        if self._pinned_at:
            runtime: Any = torch.cuda.cudart()
            runtime.cudaHostUnregister(self._pinned_at)
            self._pinned_at = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A slot: its number in the order of the link, from 1 on, and where its bytes begin."""

    sequence: int
    start: int

    @property
    def index(self) -> int:
        return self.sequence % NUM_SLOTS

    @property
    def mark(self) -> int:
        return self.sequence % (2**31 - 1) + 1


class Ring:
    """The sender's end."""

    def __init__(self, memory: Memory, descriptor: int, secret: bytes) -> None:
        self.memory, self._descriptor = memory, descriptor
        self.offer = f"{os.getpid()} {descriptor} {memory.num_bytes} {secret.hex()}"
        self._size = memory.num_bytes - DATA_START
        self._unread: deque[tuple[int, int]] = deque()  # sequence and first byte, counted on and on
        self._next_sequence, self._next_byte = 1, 0

    @classmethod
    def make(cls, num_bytes: int) -> Ring | None:
        """None where the system has no such memory, or none left."""
        if not _is_known_here():
            return None
        import fcntl

        size = DATA_START + -(-min(num_bytes, MAX_RING_BYTES - DATA_START) // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = -1
        try:
            descriptor = os.memfd_create("noodle-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            memory = Memory(descriptor, size)
        except OSError:
            if descriptor >= 0:
                os.close(descriptor)
            return None
        secret = secrets.token_bytes(SECRET_BYTES)
        memory.write_secret(secret)
        return cls(memory, descriptor, secret)

    @property
    def is_read(self) -> bool:
        return bool(self.memory.state[0] == 1)

    def reserve(self, num_bytes: int) -> Place | None:
        """A slot of that size with an empty header; None if nobody reads, or if there is no room now or ever."""
        taken = -(-num_bytes // ALIGNMENT) * ALIGNMENT
        if not self.is_read or taken > self._size:
            return None
        last_read = int(self.memory.state[1])
        while self._unread and self._unread[0][0] <= last_read:
            self._unread.popleft()
        first = self._next_byte
        if first % self._size + taken > self._size:
            first += self._size - first % self._size
        oldest = self._unread[0][1] if self._unread else first
        if first + taken - oldest > self._size or len(self._unread) >= NUM_SLOTS - 1:
            return None
        place = Place(self._next_sequence, first % self._size)
        self._unread.append((place.sequence, first))
        self._next_sequence, self._next_byte = place.sequence + 1, first + taken
        self.memory.marks[place.index] = 0
        self.memory.times[place.index] = 0.0
        return place

    def tell(self, place: Place, spent_s: float, ended_s: float) -> None:
        """Add to a slot's header how long it was computed and when that ended, if the header is still its own."""
        if self._next_sequence <= place.sequence + NUM_SLOTS:
            self.memory.times[place.index] = spent_s, ended_s

    def close(self) -> None:
        """Once no copy is under way."""
        self.memory.unpin()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1


def opened(offer: str) -> Memory | None:
    """The memory that a sender offers, if it can be opened here and is what it says; None if not, for whatever reason."""
    if not _is_known_here():
        return None
    import fcntl

    try:
        process, descriptor, num_bytes = (int(word) for word in offer.split()[:3])
        secret = bytes.fromhex(offer.split()[3])
        path = f"/proc/{process}/fd/{descriptor}"
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a device or a pipe may do something
            return None
        here = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError, IndexError):
        return None
    try:
        seals = fcntl.fcntl(here, fcntl.F_GET_SEALS)  # only memory has any; what can shrink could end this process
        found, wanted = os.fstat(here), fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        if found.st_size != num_bytes or seals & wanted != wanted:
            return None
        if not DATA_START < num_bytes <= MAX_RING_BYTES or len(secret) != SECRET_BYTES:
            return None
        memory = Memory(here, num_bytes)
    except (OSError, ValueError):
        return None
    finally:
        os.close(here)
    return memory if hmac.compare_digest(memory.secret, secret) else None


def _is_known_here() -> bool:
    return hasattr(os, "memfd_create") and sys.byteorder == "little"


def word_of(place: Place, magnitude: float) -> int:
    """What a header says once its slot is filled."""
    return int(place.mark | struct.unpack("=I", struct.pack("=f", magnitude))[0] << 32)


def magnitude_of(word: int) -> float:
    return float(struct.unpack("=f", struct.pack("=I", word >> 32))[0])


def num_bytes_of(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return math.prod(shape) * dtype.itemsize
