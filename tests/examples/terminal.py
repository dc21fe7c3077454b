# terminal.py RUN: plays a terminal on which somebody chats with the model of RUN: keys, pastes, long lines, answers.
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

COLUMNS = 40
run = sys.argv[1]
failures = 0


def check(what, holds, shown=b""):
    global failures
    if not holds:
        failures += 1
        print("FAIL", what, shown[-400:], file=sys.stderr)


class Chat:
    def __init__(self, *flags, stdout_too=True):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        command = ["chimera-chat", "--model", run, "--template", "chatml", "--temp", "0", "-n", "3", *flags]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        env={**os.environ, "TERM": "xterm"},
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.seen = b""
        self.wait(b"/help lists")
        self.wait(b"> ")

    def wait(self, mark, seconds=30):
        """All that came until `mark` did."""
        end = time.time() + seconds
        while mark not in self.seen and time.time() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:
                    break
        check(f"the terminal shows {mark!r}", mark in self.seen, self.seen)
        head, _, self.seen = self.seen.partition(mark)
        return head

    def type(self, keys):
        os.write(self.master, keys)

    def saved(self, name):
        """What was said, as the file has it."""
        self.type(f"/save {name}\r".encode())
        self.wait(f"saved {name}".encode())
        self.wait(b"> ")
        return open(name, "rb").read().split(b"\0")[0].decode()

    def end(self, keys=b"/exit\r"):
        self.type(keys)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = None
        check(f"{keys!r} ends it", code == 0)
        check("the terminal is as it was", termios.tcgetattr(self.slave) == self.before)


def said(*keys):
    """The user's message after these keys and Enter."""
    chat = Chat()
    for k in keys:
        chat.type(k)
        time.sleep(0.05)
    chat.type(b"\r")
    chat.wait(b"\n")
    time.sleep(0.3)
    text = chat.saved("talk")
    chat.end()
    return re.findall(r'"role": "user", "content": "(.*)"\}', text)


for keys, message in [
    ((b"hallo", b"\x1b[D" * 4, b"\x1b[3~", b"e"), "hello"),  # left, delete
    ((b"world", b"\x01", b"hello ", b"\x05", b"!"), "hello world!"),  # start and end of line
    ((b"one two", b"\x17", b"three"), "one three"),  # the word before
    ((b"forget this", b"\x15", b"keep"), "keep"),
    (("naïvé".encode(), b"\x7f", b"e"), "naïve"),  # a character of two bytes
    ((b"\x1b[200~first\rsecond\nthird\x1b[201~",), "first\\nsecond\\nthird"),  # a paste is one message
    ((b"\x1b[200~a\tb\x1b[31m\x1b[201~",), "a b[31m"),  # and cannot control anything
    ((b"this \\", b"\r", b"and this"), "this \\nand this"),
    ((b"this", b"\x1b\r", b"and this"), "this\\nand this"),
    ((b"x" * 300,), "x" * 300),
]:
    found = said(*keys)
    check(f"{keys!r} makes {message!r}, found {found!r}", found == [message])

chat = Chat("-c", "1024", "--slide")
long = b"y" * 9000
chat.type(b"\x1b[200~" + long[:400] + b"\x1b[201~\r")
chat.wait(b"> ")
chat.type(b"first\r")
chat.wait(b"> ")
chat.type(b"second\r")
chat.wait(b"> ")
time.sleep(0.5)
chat.type(b"\x1b[A\x1b[A\x1b[B\r")  # up, up, down: the second again
chat.wait(b"> ")
time.sleep(0.5)
text = chat.saved("history")
check("history", len(re.findall(r'"content": "second"', text)) == 2, text.encode())
chat.type(b"/reset\r")
chat.wait(b"the conversation is forgotten")
chat.type(b"half a line\x03")
chat.wait(b"Ctrl-C once more, or /exit, ends this")
chat.end(b"\x03")
for keys in (b"/quit\r", b"\x04"):
    Chat().end(keys)

# A line longer than a terminal's own line buffer.
chat = Chat("--slide")
chat.type(b"\x1b[200~" + long[:5000] + b"\x1b[201~")
chat.wait(b"y" * 20)
chat.type(b"\r")
chat.wait(b"of the context of 1024")
chat.end()

# Words are wrapped at the terminal's width.
chat = Chat("-n", "120")
chat.type(b"hello\r")
time.sleep(3)
chat.type(b"/exit\r")
chat.process.wait(30)
while select.select([chat.master], [], [], 0.2)[0]:
    try:
        chat.seen += os.read(chat.master, 65536)
    except OSError:
        break
lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", chat.seen).decode(errors="replace").split("\n")
check("no line is wider than the terminal", all(len(line.split("\r")[-1]) <= COLUMNS for line in lines), chat.seen)
sys.exit(failures > 0)
