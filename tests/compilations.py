"""How many programs JAX has compiled in this process."""

import jax

_EVENTS: list[str] = []


def _count(event, *_, **__):
    if event == "/jax/core/compile/backend_compile_duration":
        _EVENTS.append(event)


jax.monitoring.register_event_duration_secs_listener(_count)


def compilations():
    return len(_EVENTS)
