import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest

from lit_attr.decomposition import locate
from lit_attr.errors import RunNotFoundError


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    attempts: list[object] = []

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        attempts.append(args)
        raise OSError("a test asked for the network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)

    def not_on_wandb(reference: object, folder: object) -> NoReturn:
        raise RunNotFoundError(f"wandb was asked for {reference}")

    for name in ("download_run", "download_target"):
        monkeypatch.setattr(locate, name, not_on_wandb)
    yield
    # Code that swallows the refusal is found all the same.
    assert not attempts
