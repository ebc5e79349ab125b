"""What can be chosen about a labelling page."""

from dataclasses import dataclass
from ipaddress import ip_address

from envs.errors import RllabError


@dataclass(frozen=True)
class PageConfig:
    """Where the labelling page is served, and what people are asked for."""

    host: str = "127.0.0.1"
    """The address to listen at. Any but this machine's own needs a token, which is told on the terminal."""
    port: int = 8080
    """0 takes a free one."""
    names: tuple[str, ...] = ()
    """Further host names by which browsers reach it, as through a proxy."""
    target: int | None = None
    """Answers wanted in all, shown on the page; None: what the training asks for."""
    goal: int = 100
    """Answers a day that a person is shown as their goal; 0: none."""
    second_opinions: float = 0.1
    """Share of the questions that somebody else has answered already."""
    repeats: float = 0.05
    """Share of the questions that the same person has answered before, shown the other way round."""
    lease_seconds: float = 300.0
    """How long a question is kept for whoever has it in hand."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise RllabError(f"port must lie in 0 to 65535, not {self.port}")
        for name in ("second_opinions", "repeats"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise RllabError(f"{name} must lie in [0, 0.5], not {getattr(self, name)}")
        if self.goal < 0 or (self.target is not None and self.target < 1):
            raise RllabError("goal must be 0 or more, and target at least 1")
        if not self.lease_seconds > 0:
            raise RllabError(f"lease_seconds must be above 0, not {self.lease_seconds}")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
