"""The scheduler plug-in that looks after every run: `plugin` answers clients, `keeper` keeps a run going."""

from paramserver.supervisor.plugin import Supervisor

__all__ = ["Supervisor"]
