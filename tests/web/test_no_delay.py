from __future__ import annotations

import socket

from clearmargin.web.run import open_socket


def test_small_answers_are_sent_at_once() -> None:
    with open_socket("127.0.0.1", 0) as opened, socket.create_connection(opened.getsockname()):
        connection, _ = opened.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
