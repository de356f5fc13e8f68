"""How far one server scales: the real core in virtual time, with measured costs in the place of arithmetic."""
