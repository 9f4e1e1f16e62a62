"""Turns an uploaded file into frames, in sandboxed worker processes.

`pool.FramePool` is the way in; `frame` holds what comes out. Everything that touches a file's bytes (`extract` and
what it calls) runs in a worker (`worker`), which `zygote` forks and `sandbox` shuts in.
"""
