"""What a daemon begins with: measured by what the C library says of its own heaps."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
{begin}
{work}
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
told = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
"""
BEGIN = "from blockjobs.cli.service import set_up_service; set_up_service()"
EIGHT_THREADS = """
gate = threading.Barrier(9)

def work():
    kept = [bytes(4000) for _ in range(100)]
    gate.wait()  # all of them are there at once
    del kept

for _ in range(8):
    threading.Thread(target=work).start()
gate.wait()
"""
A_TABLE_BUILT_ANEW = """
small = []
for _ in range(20):
    table = bytearray(2_000_000)
    small.append(bytes(4000))  # behind it
    del table
"""


def heaps(tmp_path, begin, work):
    """How many there are, and how many bytes they have from the system."""
    path = tmp_path / "heaps.xml"
    argv = [sys.executable, "-c", PROGRAM.format(begin=begin, work=work), str(path)]
    subprocess.run(argv, capture_output=True, check=True)
    text = path.read_text()
    sizes = re.findall(r'<system type="current" size="(\d+)"/>', text)
    return len(re.findall("<heap nr", text)), int(sizes[-1])


def test_all_threads_of_a_daemon_share_two_heaps(tmp_path):
    assert heaps(tmp_path, BEGIN, EIGHT_THREADS)[0] <= 2
    assert heaps(tmp_path, "", EIGHT_THREADS)[0] > 2, "else this would show nothing"


@pytest.mark.parametrize(("begin", "grows"), [(BEGIN, False), ("", True)], ids=["a-daemon", "left-alone"])
def test_what_is_large_is_given_back_wherever_it_lay(tmp_path, begin, grows):
    before, after = (heaps(tmp_path, begin, work)[1] for work in ("", A_TABLE_BUILT_ANEW))
    assert (after - before > 1_000_000) is grows
