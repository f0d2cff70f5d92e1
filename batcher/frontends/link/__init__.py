"""Between a front process and the engine: decoded requests, answers, cancellations and states."""
