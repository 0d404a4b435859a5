"""Answers REFUSED to every DNS question, so that names of public registries fail at once. argv: a file to make when ready."""
import socket
import sys

names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("0.0.0.0", 53))
open(sys.argv[1], "w").close()
while True:
    question, asker = names.recvfrom(4096)
    if len(question) >= 12 and not question[2] & 0x80:
        # An answer (QR), with the question's own opcode and RD bit; recursion is available; code 5: refused.
        names.sendto(question[:2] + bytes([0x80 | question[2] & 0x79, 0x85]) + question[4:6] + bytes(6) + question[12:], asker)
