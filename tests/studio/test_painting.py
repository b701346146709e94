"""Where the models work."""

import threading

from sagan_pipeline import SAGANetsPipeline
from studio import in_painter, painting


def test_models_are_loaded_and_used_in_one_thread(tiny_pipe, tiny_adapter, monkeypatch):
    """A second thread that computes with tensors leaves OpenMP with more threads than processors."""
    where = []
    load = SAGANetsPipeline.load_adapter

    def watched(pipe, *args, **kwargs):
        where.append(threading.current_thread())
        return load(pipe, *args, **kwargs)

    monkeypatch.setattr(SAGANetsPipeline, "load_adapter", watched)
    painting.register(tiny_pipe, tiny_adapter.parent, "own")
    painter = in_painter(threading.current_thread)
    assert where and set(where) == {painter} and painter is not threading.main_thread()
