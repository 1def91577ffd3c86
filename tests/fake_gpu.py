"""A GPU for what measures GPUs: torch, with a device that is the CPU."""

import time
from types import SimpleNamespace


class FakeCuda(SimpleNamespace):
    """torch.cuda's calls that measuring makes; an event's time is the CPU's."""

    def __init__(self):
        class Event:
            def __init__(self, enable_timing):
                self.at = 0.0

            def record(self):
                self.at = time.perf_counter()

            def synchronize(self):
                pass

            def elapsed_time(self, later):
                return (later.at - self.at) * 1e3

        properties = SimpleNamespace(name="Fake", multi_processor_count=2, total_memory=1 << 30, L2_cache_size=1 << 16,
                                     major=9, minor=0, uuid=None)  # fmt: skip
        super().__init__(
            Event=Event, current_device=lambda: 0, get_device_properties=lambda device: properties,
            mem_get_info=lambda device: (1 << 30, 1 << 30), synchronize=lambda: None, _sleep=lambda cycles: None,
            memory_reserved=lambda: 0, empty_cache=lambda: None, is_available=lambda: True,
        )  # fmt: skip


class FakeTorch:
    """torch, with a GPU that is the CPU."""

    def __init__(self, torch):
        self._torch, self.cuda = torch, FakeCuda()

    def device(self, *names):
        return self._torch.device("cpu")

    def __getattr__(self, name):
        return getattr(self._torch, name)
