import json
import socket
import subprocess
import sys

from gateway.frames.settings import FrameSettings
from gateway.frames.zygote import MESSAGE_BYTES


def test_a_gateway_that_leaves_without_reading_the_last_word_is_no_fault():
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with control, theirs:
        zygote = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway.frames.zygote", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        order = {"settings": FrameSettings().model_dump(mode="json"), "extractor": "gateway.frames.extract:extract"}
        control.send(json.dumps(order).encode())
        assert json.loads(control.recv(MESSAGE_BYTES)) == {"ready": True}
        ours, workers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, workers:
            socket.send_fds(control, [json.dumps({"fork": 1}).encode()], [workers.fileno()])
            message = control.recv(MESSAGE_BYTES, socket.MSG_PEEK)
            assert json.loads(message)["forked"] == 1
            control.close()
    _, complaints = zygote.communicate(timeout=60)
    assert (zygote.returncode, complaints) == (0, "")
