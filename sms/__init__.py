"""The secret service, iExec's SMS: keeps secrets of dataset owners, app developers and requesters, for enclaves alone.

    requester, SDK ──► secrets/…      vault (AES-256-GCM) ──► store (MongoDB, SQLite)
    scheduler ───────► tee/challenges/{task}     a key pair per task: its address goes into authorizations
    worker ──────────► tee/sessions              checked on chain ──► provision ──► the enclave

A process of its own, which imports nothing of the scheduler or of workers (import-linter).
"""
