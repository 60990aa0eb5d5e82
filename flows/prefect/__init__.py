"""The only door to Prefect. Everybody else imports what they need of it from here: `flows` (what
flows are made of), `api` (runs on the server), `pools` (pools, deployments), `page` (what a run
shows).

Prefect reads its settings once, when it is first imported; they are applied here, before that.
"""

from flows.prefect.settings import apply

apply()
