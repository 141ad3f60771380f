"""How long a test waits for what must happen: it ends a test that hangs, on a machine that is slow and busy too."""

PATIENCE_S = 400.0  # pytest's own limit of a test is in pyproject.toml
PATIENCE_MS = 1000 * PATIENCE_S
