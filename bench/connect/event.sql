\set issuer 2 + :client_id
\set taker random(40, :users)
\set number random(1, 1000000000000000)
BEGIN;
INSERT INTO connect.event_keys VALUES ('bench', :number::text || '-' || :client_id::text, sha256(int8send(:number)), uuidv7())
    RETURNING event_id \gset
INSERT INTO connect.events VALUES (:event_id::uuid, 'bench', :number::text || '-' || :client_id::text, 'booking.paid',
    'user-' || :taker::text, '', '{"city": "city-1", "amount": 700}', now(), now());
INSERT INTO connect.reward_actions (action_id, event_id, rule_id, rule_version, action_key, recipient_user_id, kind,
    command, state, attempts)
VALUES
    (uuidv7(), :event_id::uuid, 'booking', 1, 'points', 'user-' || :taker::text, 'credit_points',
        '{"unit": "G2A", "amount": 10}', 'COMPLETED', 1),
    (uuidv7(), :event_id::uuid, 'booking', 1, 'badge', 'user-' || :taker::text, 'increment_progress',
        '{"nft_type": "traveller", "counter": "bookings", "amount": 1}', 'COMPLETED', 1);
INSERT INTO connect.evaluations VALUES (:event_id::uuid, 1, jsonb_build_array(jsonb_build_object(
    'rule_id', 'booking', 'rule_version', 1, 'result', 'MATCHED', 'detail', 'The condition holds.',
    'action_ids', jsonb_build_array(:event_id::text, :event_id::text))));
SELECT posted, version FROM points.accounts WHERE account_id = :issuer FOR NO KEY UPDATE \gset issuer_
SELECT posted, version FROM points.accounts WHERE account_id = :taker FOR NO KEY UPDATE \gset taker_
INSERT INTO points.idempotency_keys VALUES ('pgbench', :number::text || '-' || :client_id::text, sha256(int8send(:number)), '');
WITH made AS (
    INSERT INTO points.transactions (transaction_id, request_id, kind, user_id, recipient, unit, amount,
        reason, reference, metadata, effective_time, booked_time)
    VALUES (uuidv7(), :number::text, 'award', 'user-' || :taker::text, '', 'G2A', 10, 'booking', :event_id::text,
        '{"action_key": "points", "rule_version": "1"}', now(), now())
    RETURNING transaction_id
)
SELECT transaction_id FROM made \gset
INSERT INTO points.entries VALUES
    (:transaction_id::uuid, 0, :issuer, -10, :issuer_posted::bigint - 10, :issuer_version::bigint + 1),
    (:transaction_id::uuid, 1, :taker, 10, :taker_posted::bigint + 10, :taker_version::bigint + 1);
UPDATE points.accounts SET posted = posted - 10, version = version + 1 WHERE account_id = :issuer;
UPDATE points.accounts SET posted = posted + 10, version = version + 1 WHERE account_id = :taker;
INSERT INTO points.lots VALUES (:transaction_id::uuid, 0, :taker, 10, 10, 0, NULL);
INSERT INTO nft.idempotency_keys VALUES ('pgbench', :number::text || '-' || :client_id::text, sha256(int8send(:number)), sha256(int8send(:number)));
INSERT INTO nft.nft_progress (user_id, nft_type, counters) VALUES ('user-' || :taker::text, 'traveller', '{"bookings": 1}')
    ON CONFLICT (user_id, nft_type) DO UPDATE
    SET counters = jsonb_build_object('bookings', (nft_progress.counters ->> 'bookings')::bigint + 1)
    RETURNING (counters ->> 'bookings')::bigint AS bookings \gset
INSERT INTO nft.nft_audit_log (actor, action, subject, user_id, before, after, reference, request_id, trace_id)
    VALUES ('connect/bench', 'reward.apply', 'progress/traveller', 'user-' || :taker::text,
        jsonb_build_object('counter', 'bookings', 'value', :bookings::bigint - 1, 'level', 0),
        jsonb_build_object('counter', 'bookings', 'value', :bookings::bigint, 'level', 0),
        :event_id::text, :number::text, md5(:number::text));
COMMIT;
