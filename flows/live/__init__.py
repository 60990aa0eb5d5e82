"""The pages of runs while they go on, beside Prefect's: `app` answers, `static/` draws."""
