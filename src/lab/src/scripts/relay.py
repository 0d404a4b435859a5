"""Joins two links and holds each frame back. argv: LINK LINK MILLISECONDS READY. For kernels without sch_netem."""
import collections
import select
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23


def open_link(name):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    # With this header frames keep their segmentation and checksum offload: nothing has to be cut or summed here.
    link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    link.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    link.bind((name, 0))
    return link


links = [open_link(name) for name in sys.argv[1:3]]
delay = float(sys.argv[3]) / 1000
waiting = collections.deque()  # (due, link that sends, frame); one delay for all, so it is in order
open(sys.argv[4], "w").close()
while True:
    rest = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
    for link in select.select(links, [], [], rest)[0]:
        frame = link.recv(70000)
        waiting.append((time.monotonic() + delay, links[1 - links.index(link)], frame))
    while waiting and waiting[0][0] <= time.monotonic():
        _, link, frame = waiting.popleft()
        try:
            link.send(frame)
        except OSError:
            pass  # a link that is down loses frames
