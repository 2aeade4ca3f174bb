"""The embedded default: everything Go2Asia's reward mesh needs, on one machine, from wheels alone.

Owns the Postgres clusters (one per service), the NATS server, the development certificates and
the supervisor that starts, watches and stops them together with the services. All state lives in
one folder; removing that folder is a full reset.

Invariants:
- committed data survives SIGKILL of any process (`fsync` on, `sync_interval: always`);
- no process outlives the one that started the stack, however that one ends;
- every server listens on the loopback interface only and asks for a password or a certificate.
"""
