"""What an app reads and writes: arguments, deal params, `computed.json`, digests, error results (iExec). Pure."""
