\set number random(1, 1000000000000000)
\set taker random(:users / 2 + 1, :users)
BEGIN;
SELECT posted, version FROM accounts WHERE account_id = :giver FOR NO KEY UPDATE \gset giver_
SELECT posted, version FROM accounts WHERE account_id = :taker FOR NO KEY UPDATE \gset taker_
INSERT INTO idempotency_keys VALUES ('pgbench', :number::text || '-' || :client_id::text, sha256(int8send(:number)), '');
WITH made AS (
    INSERT INTO transactions (transaction_id, request_id, kind, user_id, recipient, unit, amount,
        reason, reference, metadata, effective_time, booked_time)
    VALUES (uuidv7(), :number::text, 'transfer', 'user-' || :giver::text, 'user-' || :taker::text, 'G2A', 1, 'bench', '',
        '{}', now(), now())
    RETURNING transaction_id
)
SELECT transaction_id FROM made \gset
INSERT INTO entries VALUES
    (:transaction_id::uuid, 0, :giver, -1, :giver_posted::bigint - 1, :giver_version::bigint + 1),
    (:transaction_id::uuid, 1, :taker, 1, :taker_posted::bigint + 1, :taker_version::bigint + 1);
UPDATE accounts SET posted = posted - 1, version = version + 1 WHERE account_id = :giver;
UPDATE accounts SET posted = posted + 1, version = version + 1 WHERE account_id = :taker;
UPDATE lots SET remaining = remaining - 1
    WHERE transaction_id = lpad(to_hex(:giver::int), 32, '0')::uuid AND ordinal = 0;
INSERT INTO lots VALUES (:transaction_id::uuid, 0, :taker, 1, 1, 0, NULL);
INSERT INTO lot_changes VALUES (:transaction_id::uuid, lpad(to_hex(:giver::int), 32, '0')::uuid, 0, -1);
COMMIT;
