"""Config loading, the stage contract, identity and the plan: no torch, no ray, no prefect."""
