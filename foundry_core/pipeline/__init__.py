"""Config loading, the stage contract, identity and the plan. Imports neither torch, ray nor prefect."""
